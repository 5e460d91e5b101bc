"""What a case is made of: contenders that do the same thing one after the other, round by round, and what comes out of a round."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.agents import Network

PATIENCE = 600.0
"""Seconds until a run counts as stuck."""

Document = dict[str, Any]

Graph = list[list[int]]
"""Tasks by number: which ones each needs, all of them smaller numbers."""


class Absent(Exception):
    """A contender that cannot be measured here; the message says why."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of everything a round does; ``files`` and ``logs`` in bytes, ``idle`` in seconds over all rounds."""

    fan: int = 2_000
    layered: int = 1_000
    chain: int = 200
    latency: int = 100
    core: int = 20_000
    accept: int = 100_000
    growth: int = 100_000
    coordinator: int = 100_000
    nodes: int = 1_000
    runs: int = 1_000
    files: int = 1_000_000_000
    logs: int = 500_000_000
    idle: int = 300

    def scaled(self, scale: float) -> Sizes:
        """All of it more or less."""
        return Sizes(*(max(1, int(getattr(self, name) * scale)) for name in self.__slots__))


@dataclass(slots=True)
class Round:
    """One round: a number per contender, Wattle first, all in ``unit``; and what else was seen, in units of its own."""

    unit: str
    numbers: dict[str, float]
    details: dict[str, float] = field(default_factory=dict)
    absent: dict[str, str] = field(default_factory=dict)  # who was not measured, and why
    load: float = field(default_factory=lambda: os.getloadavg()[0])


@dataclass(slots=True)
class Bench:
    """What a round may use: the folder that all data goes below, and a network, started by the first case that asks for it."""

    sizes: Sizes
    place: Path
    network: Callable[[], Network]
    rounds: int = 1
    turn: int = 0  # the round's number, from 0


Case = Callable[[Bench], Round]


def side_by_side(
    bench: Bench, unit: str, factor: float, contenders: Mapping[str, Callable[[], float]], details: dict[str, float]
) -> Round:
    """Let each contender do it once, every other round in the opposite order; what they return times ``factor`` is in ``unit``."""
    names = list(contenders)
    found: dict[str, float] = {}
    absent: dict[str, str] = {}
    for name in names if bench.turn % 2 == 0 else reversed(names):
        try:
            found[name] = contenders[name]() * factor
        except Absent as why:
            absent[name] = str(why)
    return Round(unit, {name: found[name] for name in names if name in found}, details, absent)


# --- graphs -----------------------------------------------------------------------------------------------------------


def fan_of(count: int) -> Graph:
    """So many tasks that need nothing."""
    return [[] for _ in range(count)]


def chain_of(count: int) -> Graph:
    """So many tasks, each needing the one before."""
    return [[n - 1] if n else [] for n in range(count)]


def layers_of(count: int, layers: int = 20, edges: int = 3) -> Graph:
    """About so many tasks in layers, each needing ``edges`` neighbours of the layer before, the last ones wrapping round."""
    width = max(1, count // layers)
    near = range(min(edges, width))
    return [
        [(layer - 1) * width + (n + k) % width for k in near] if layer else []
        for layer in range(layers)
        for n in range(width)
    ]


def document_of(name: str, graph: Graph, command: str) -> Document:
    """A graph as a document, every task one command."""
    workers = [
        {"name": f"w{n}", "command": command, **({"needs": [f"w{k}" for k in needs]} if needs else {})}
        for n, needs in enumerate(graph)
    ]
    return {"name": name, "workers": workers}
