"""Turns what scripts/compare.sh measured into docs/benchmarks.md and its plots.

    python3 benches/compare/report machine [WHAT=CORES ...]          what this machine is, as JSON
    python3 benches/compare/report write RESULTS MACHINE OUT         the page and the plots

Only the standard library, so that nothing needs to be installed to read a measurement.
"""

import json
import sys
from pathlib import Path

import figures
import machine
import page
import plot


def write(results, machine_json, out):
    measured = figures.read(results)
    about = json.loads(Path(machine_json).read_text())
    out = Path(out)
    plots = out / "benchmarks"
    plots.mkdir(parents=True, exist_ok=True)
    for old in plots.glob("*.svg"):
        old.unlink()
    for work in measured:
        drawing = plot.draw(work)
        if drawing:
            (plots / page.plot_name(work)).write_text(drawing)
    (out / "benchmarks.md").write_text(page.render(measured, about))
    print(f"wrote {out / 'benchmarks.md'}", file=sys.stderr)


def main(arguments):
    match arguments:
        case ["machine", *pins]:
            print(json.dumps(machine.describe(dict(pin.split("=", 1) for pin in pins))))
        case ["write", results, machine_json, out]:
            write(results, machine_json, out)
        case _:
            sys.exit(__doc__)


main(sys.argv[1:])
