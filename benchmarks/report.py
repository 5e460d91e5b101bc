"""What came out, as a table for people and as JSON.

A ratio is formed within each round, between things done seconds apart, and the median of these is shown: what else the machine
did meanwhile then weighs on both sides. Its spread is that of the rounds' ratios.
"""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from importlib.metadata import version
from typing import Any

from benchmarks.frame import Round
from wattle import __version__


def summary(rounds: Sequence[Round]) -> dict[str, Any]:
    """Medians, spread and ratios of a case's rounds, with every number they come from."""
    contenders = _by_name([round.numbers for round in rounds])
    ratios = _by_name([_ratios(round.numbers) for round in rounds])
    details = _by_name([round.details for round in rounds])
    return {
        "unit": rounds[0].unit,
        "contenders": {name: _spread(values) for name, values in contenders.items()},
        "ratios": {name: _spread(values) for name, values in ratios.items()},
        "details": {name: _spread(values) for name, values in details.items()},
        "absent": {name: why for round in rounds for name, why in round.absent.items()},
        "load": _spread([round.load for round in rounds]),
    }


def _ratios(numbers: dict[str, float]) -> dict[str, float]:
    return {f"wattle/{name}": numbers["wattle"] / number for name, number in numbers.items() if name != "wattle"}


def _by_name(rounds: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """The rounds' numbers by name, in the order of the fullest round; who was missing in a round has fewer."""
    names = max(rounds, key=len)
    return {name: [numbers[name] for numbers in rounds if name in numbers] for name in names}


def _spread(values: list[float]) -> dict[str, Any]:
    return {"median": statistics.median(values), "least": min(values), "most": max(values), "rounds": values}


def table(case: str, title: str, found: dict[str, Any]) -> str:
    """A case's summary in lines of text: median, and the least and most of all rounds."""
    lines = [f"{case}: {title}", ""]
    lines += [_line(f"{name}, {found['unit']}", seen) for name, seen in found["contenders"].items()]
    lines += [_line(name, seen) for name, seen in found["ratios"].items()]
    lines += [_line(name, seen) for name, seen in found["details"].items()]
    lines += [f"  {name} was not measured: {why}" for name, why in found["absent"].items()]
    lines += [_line("load of the machine", found["load"])]
    return "\n".join(lines) + "\n"


def _line(label: str, seen: dict[str, Any]) -> str:
    return f"  {label:<44}{seen['median']:>10.2f}   ({seen['least']:.2f} to {seen['most']:.2f})"


def machine() -> dict[str, Any]:
    """Where and with what it was measured; the load is that of the minute before."""
    return {
        "cpus": os.cpu_count(),
        "cpu": _cpu_model(),
        "kernel": platform.release(),
        "python": sys.version.split()[0],
        "wattle": __version__,
        "zenoh": version("eclipse-zenoh"),
        "load": os.getloadavg()[0],
    }


def _cpu_model() -> str:
    with open("/proc/cpuinfo", encoding="utf-8") as file:
        found = (line.partition(":")[2].strip() for line in file if line.startswith("model name"))
        return next(found, platform.machine())
