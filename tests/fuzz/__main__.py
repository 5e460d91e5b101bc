"""``python -m tests.fuzz [TARGET ...] --inputs N --seconds S --seed K``; without targets, all of them in turn.

``python -m tests.fuzz TARGET --replay FILE`` tries one finding again. Exit status 1 when there were findings.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.fuzz import TARGETS
from tests.fuzz.engine import HEADER, campaign, replay


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Fuzz Wattle, each target by itself.")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(TARGETS)}; default: all")
    parser.add_argument("--inputs", type=int, default=100_000, help="of each target, at most")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="for each target, at most")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--findings", type=Path, default=Path("fuzz-findings"), help="folder for inputs that failed")
    parser.add_argument("--replay", type=Path, help="an input that failed, to be tried again")
    given = parser.parse_args()
    unknown = [name for name in given.targets if name not in TARGETS]
    if unknown:
        parser.error(f"there is no target {unknown[0]!r}; there are {', '.join(TARGETS)}")
    if given.replay is not None:
        what = replay(TARGETS[given.targets[0]], given.replay)
        print(what or "nothing is wrong with it")
        return int(what is not None)
    print(HEADER, flush=True)
    found = []
    for name in given.targets or TARGETS:
        report = campaign(
            TARGETS[name], inputs=given.inputs, seconds=given.seconds, seed=given.seed, folder=given.findings
        )
        print(report.row(), flush=True)
        found += report.findings
    for finding in found:
        print(
            f"\n{finding.what}\n  input: {finding.given!r:.500}\n  file: {finding.file}\n{finding.story}",
            file=sys.stderr,
        )
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
