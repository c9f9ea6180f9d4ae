"""Measures how costs grow, and turns measurements into the pages of docs/ and their drawings.

    report machine [WHAT=CORES ...]          what this machine is, as JSON
    report benchmarks RESULTS MACHINE OUT    the page of what scripts/compare.sh measured
    report measure WORK_DIR                  the measurements of scripts/scaling.sh
    report scaling RESULTS MACHINE OUT       their page

Only the standard library, so that nothing needs to be installed to read a measurement.
"""

import json
import sys
from pathlib import Path

import benchmarks
import figures
import machine
import run
import scaling


def main(arguments):
    match arguments:
        case ["machine", *pins]:
            print(json.dumps(machine.describe(dict(pin.split("=", 1) for pin in pins))))
        case ["measure", work_dir]:
            return run.measure(Path(work_dir))
        case ["benchmarks" | "scaling" as name, results, about, out]:
            works, about = figures.read(results), json.loads(Path(about).read_text())
            if name == "scaling":
                return scaling.write(works, about, Path(out))
            tables = {path.stem: path.read_text() for path in Path(results).parent.glob("*.md")}
            benchmarks.write(works, about, Path(out), tables)
        case _:
            return __doc__


sys.exit(main(sys.argv[1:]))
