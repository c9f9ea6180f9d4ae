"""Measures how the cost of a connection, a message and a room grows, and writes docs/scaling.md and its plots.

    python3 benches/compare/scaling measure WORK_DIR      what scripts/scaling.sh calls, with its settings in the environment
    python3 benches/compare/scaling write WORK_DIR OUT    the page and the plots, from what was measured

Only the standard library. What a plot looks like and what this machine is comes from ../report.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.append(str(HERE.parent / "report"))

import chart
import measured
import page
import run


def write(work_dir, out):
    work_dir, out = Path(work_dir), Path(out)
    about = json.loads((work_dir / "machine.json").read_text())
    results = measured.Results.read(work_dir / "results.jsonl")
    text, plots = page.render(results, about)
    folder = out / "scaling"
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, plot in plots.items():
        (folder / f"{name}.svg").write_text(chart.draw(plot))
    (out / "scaling.md").write_text(text)
    print(f"wrote {out / 'scaling.md'}", file=sys.stderr)


def main(arguments):
    match arguments:
        case ["measure", work_dir]:
            return run.measure(Path(work_dir))
        case ["write", work_dir, out]:
            write(work_dir, out)
        case _:
            sys.exit(__doc__)


sys.exit(main(sys.argv[1:]))
