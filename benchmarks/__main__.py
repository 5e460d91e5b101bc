"""The program: ``python -m benchmarks [CASE ...] [--rounds N] [--scale X] [--links HOW] [--folder DIR] [--json FILE] [--svg FILE]``."""

from __future__ import annotations

import argparse
import json
import signal
import sys
from contextlib import ExitStack
from dataclasses import replace
from functools import cache
from pathlib import Path
from subprocess import CalledProcessError
from typing import Any

from benchmarks import drawing, report
from benchmarks.agents import LINKS, network
from benchmarks.cases import CASES
from benchmarks.frame import Bench, Sizes
from wattle.errors import WattleError


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write; 0 when all went well."""
    options = _parse(arguments)
    about = report.machine()
    print(", ".join(f"{name} {value}" for name, value in about.items()) + "\n")
    try:
        with ExitStack() as stack:
            shared = cache(lambda: stack.enter_context(network(options.folder, links=options.links)))
            bench = Bench(Sizes().scaled(options.scale), options.folder, shared, options.rounds)
            found: dict[str, Any] = {}
            for name in options.cases or CASES:
                found[name] = _measure(name, bench)
                print(report.table(name, found[name]["title"], found[name]), flush=True)
                _write(options, about, found)
    except (WattleError, CalledProcessError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    return 0


def _write(options: argparse.Namespace, about: dict[str, Any], found: dict[str, Any]) -> None:
    """Write what has been measured so far: what took long is not lost with the last case."""
    if options.json is not None:
        options.json.write_text(json.dumps({"machine": about, "cases": found}, indent=1) + "\n")
    if options.svg is not None:
        options.svg.write_text(drawing.draw(about, found))


def _measure(name: str, bench: Bench) -> dict[str, Any]:
    """All rounds of a case."""
    rounds = [CASES[name](replace(bench, turn=turn)) for turn in range(bench.rounds)]
    return {"title": " ".join((CASES[name].__doc__ or "").split()), **report.summary(rounds)}


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"of {', '.join(CASES)}; all by default")
    parser.add_argument("--rounds", type=int, default=5, help="rounds of each case, Wattle and baselines in turn (5)")
    parser.add_argument("--scale", type=float, default=1.0, help="sizes relative to the standard ones (1)")
    parser.add_argument("--folder", type=Path, default=Path("/tmp"), help="where all data goes; keep it short (/tmp)")
    parser.add_argument(
        "--links",
        choices=LINKS,
        default="sockets",
        help="how the shared network of most cases is linked: unix sockets, tcp on loopback, or tls with certificates and access rules",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything that was measured")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="draw it")
    options = parser.parse_args(arguments)
    unknown = [name for name in options.cases if name not in CASES]
    if unknown or options.rounds < 1:
        parser.error(f"no such case: {', '.join(unknown)}" if unknown else "--rounds must be at least 1")
    return options


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # ends what was started, as an interrupt does
    sys.exit(main())
