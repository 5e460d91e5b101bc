"""The program: ``python -m tests.torture [--seconds S] [--seed N] [--runs N] [--workers N] [--wipe] [--down] [--folder DIR] [--keep]``."""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

from tests.torture.run import Options, Outcome, torture


def main(arguments: list[str] | None = None) -> int:
    """Torture, tell, and keep the folder when something is wrong; 0 when all went well."""
    options, place, file, keep = _parse(arguments)
    folder = Path(tempfile.mkdtemp(prefix="wtt-", dir=place))
    print(f"torture: seed {options.seed}, {options.seconds:.0f} s, in {folder}", flush=True)
    outcome = torture(folder, options)
    print(report(outcome))
    if file is not None:
        file.write_text(
            json.dumps({"options": asdict(options), "load": os.getloadavg()} | outcome.figures, indent=1) + "\n"
        )
    if outcome.bad:
        print(f"torture: seed {options.seed} is bad; everything is kept in {folder}", file=sys.stderr)
        return 1
    if not keep:
        shutil.rmtree(folder)
    return 0


def report(outcome: Outcome) -> str:
    """What came out, in lines of text."""
    lines = [f"  {name:<36}{value}" for name, value in outcome.figures.items()]
    return "\n".join([*lines, *outcome.bad, "torture: " + ("BAD" if outcome.bad else "all right")])


def _parse(arguments: list[str] | None) -> tuple[Options, Path, Path | None, bool]:
    parser = argparse.ArgumentParser("python -m tests.torture", description=__doc__)
    parser.add_argument("--seconds", type=float, default=300.0, help="how long faults last (300)")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10**6), help="of the schedule (by chance)")
    parser.add_argument("--runs", type=int, default=20, help="runs (20)")
    parser.add_argument("--workers", type=int, default=100, help="workers of each run (100)")
    parser.add_argument("--coordinators", type=int, default=2)
    parser.add_argument("--runtimes", type=int, default=3)
    parser.add_argument("--gateways", type=int, default=2)
    parser.add_argument("--slots", type=int, default=4, help="of each runtime (4)")
    parser.add_argument("--wipe", action="store_true", help="coordinators also lose their disks")
    parser.add_argument("--down", action="store_true", help="one coordinator leaves for good at half time")
    parser.add_argument("--folder", type=Path, default=Path("/tmp"), help="where all data goes; keep it short (/tmp)")
    parser.add_argument("--keep", action="store_true", help="keep the folder when all is right, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    given = vars(parser.parse_args(arguments))
    place, file, keep = given.pop("folder"), given.pop("json"), given.pop("keep")
    return Options(**given), place, file, keep


if __name__ == "__main__":
    sys.exit(main())
