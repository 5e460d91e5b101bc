"""How soon work goes on after a fault, and the network is whole after a repair: ``python -m tests.namespaces [CASE ...] [--rounds N]``.

Two coordinators, two runtimes and three gateways on five hosts (network namespaces: Linux, root, iproute2), a lease of one second.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.namespaces.failover import CASES, Figures
from tests.namespaces.hosts import problem
from tests.namespaces.site import site


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; 0 when all could be measured."""
    options = _parse(arguments)
    found = problem()
    if found is not None:
        print(f"not measured: {found}", file=sys.stderr)
        return 1
    about: dict[str, Any] = {
        "cpus": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "adopt_after": options.adopt_after,
    }
    about["links"] = "multicast" if options.multicast else "dialled"
    print(", ".join(f"{name} {value}" for name, value in about.items()), flush=True)
    figures: dict[str, list[Figures]] = {}
    settings = {"WATTLE_ADOPT_AFTER": str(options.adopt_after), "WATTLE_LOST_AFTER": "300"}
    with (
        tempfile.TemporaryDirectory(prefix="wtf-", dir="/tmp") as folder,
        site(settings, multicast=options.multicast) as made,
    ):
        for name in options.cases or CASES:
            figures[name] = [CASES[name](made, Path(folder)) for _ in range(options.rounds)]
            print(table(name, figures[name]), flush=True)
    if options.json is not None:
        options.json.write_text(json.dumps({"about": about, "seconds": figures}, indent=1) + "\n")
    return 0


def table(case: str, rounds: list[Figures]) -> str:
    """What came out of a case, in lines of text."""
    lines = [f"\n{case}: {' '.join((CASES[case].__doc__ or '').split())}"]
    for what in rounds[0]:
        seen = [figures[what] for figures in rounds]
        spread = f"{statistics.median(seen):6.2f} s   ({min(seen):.2f} to {max(seen):.2f}, {len(seen)} rounds)"
        lines.append(f"  {what:<48}{spread}")
    return "\n".join(lines)


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.namespaces", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--rounds", type=int, default=20, help="rounds of each case (20)")
    parser.add_argument("--adopt-after", type=float, default=0.25, help="of the coordinators (0.25)")
    parser.add_argument("--multicast", action="store_true", help="peers find each other by multicast, and do not dial")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every figure")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.cases if name not in CASES]
    if unknown or options.rounds < 1:
        parser.error(f"no such case: {', '.join(unknown)}" if unknown else "--rounds must be at least 1")
    return options


if __name__ == "__main__":
    sys.exit(main())
