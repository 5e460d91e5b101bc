"""``python -m tests.sim --seeds 1000 --from 1 --jobs 2``: a campaign; ``--seed N --story [RUN]``: one seed and what happened in it."""

from __future__ import annotations

import argparse
import sys
import time

from tests.sim import plan as plans
from tests.sim.simulate import simulate


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, default=1000)
    parser.add_argument("--from", type=int, default=1, dest="first")
    parser.add_argument("--story", nargs="?", const="", default=None)
    parser.add_argument("--stop", type=int, default=5)
    args = parser.parse_args()
    bad = 0
    begun = time.process_time()
    events = 0
    for seed in range(args.first, args.first + args.seeds):
        result = simulate(plans.make(seed), tracing=args.story is not None)
        events += result.events
        if args.story is not None:
            for line in result.trace:
                if args.story in line or "FAULT" in line:
                    print(line[:400])
        if result.error:
            bad += 1
            print(f"seed {seed}: {result.error[:1500]}")
            if bad >= args.stop:
                break
    n = seed - args.first + 1
    print(f"{n} seeds, {bad} bad, {events} events, {(time.process_time() - begun) / n * 1000:.1f} ms each")
    return bad > 0


if __name__ == "__main__":
    sys.exit(main())
