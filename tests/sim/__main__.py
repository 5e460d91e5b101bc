"""``python -m tests.sim --seeds 1000 --from 1 --jobs 2`` runs a campaign; ``--replay SEED`` tells one seed again, whole.

Exit status 1 when a seed fails: it is printed with the faults it needs and the story of its run; or when a campaign of 2,000 seeds or more
takes not all the moves of the transition tables that it should. Nothing is written anywhere.
"""

from __future__ import annotations

import argparse
import os
import sys

from tests.sim import plan as plans
from tests.sim.campaign import Figures, campaign, shrink, story
from tests.sim.coverage import missed
from tests.sim.simulate import simulate

STORIES_MOST = 3
"""Failing seeds whose stories are told."""


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.sim", description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--from", type=int, default=1, dest="first", help="the first of them")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--replay", type=int, metavar="SEED", help="tell one seed instead")
    parser.add_argument("--only", default="", metavar="TEXT", help="of a replay, the lines with this text")
    args = parser.parse_args()
    if args.replay is not None:
        return replay(args.replay, args.only)
    figures = campaign(args.first, args.seeds, args.jobs, tell_progress if sys.stderr.isatty() else None)
    for result in figures.failed[:STORIES_MOST]:
        tell(result.seed)
    for result in figures.failed[STORIES_MOST:]:
        print(f"seed {result.seed}: {(result.error or '').splitlines()[0][:300]}")
    print(figures.table())
    return 1 if figures.failed or missed(figures.cells, figures.seeds) else 0


def tell_progress(figures: Figures) -> None:
    """Say how far the campaign is."""
    print(f"\r{figures.seeds} seeds, {len(figures.failed)} failed", end="", file=sys.stderr)


def tell(seed: int) -> None:
    """Print a failing seed, the faults it needs, and its story."""
    faults, result = shrink(seed)
    print(f"SEED {seed} fails: {result.error}")
    print(f"with these faults of {len(plans.make(seed).faults)}:")
    for fault in faults:
        print(f"  {fault}")
    print(story(result))
    print(f"again, whole: python -m tests.sim --replay {seed}\n")


def replay(seed: int, only: str) -> int:
    """Print all that happens in a seed."""
    result = simulate(plans.make(seed), tracing=True)
    for line in result.trace:
        if only in line or "FAULT" in line or "HEAL" in line:
            print(line)
    print(f"digest {result.digest}")
    print(f"seed {seed}: {result.error or 'good'}")
    return 1 if result.error else 0


if __name__ == "__main__":
    sys.exit(main())
