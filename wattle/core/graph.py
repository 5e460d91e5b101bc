"""The graph of a workflow as ``needs``: worker -> the workers it waits for. All of it linear in workers and edges, nothing recursive.

Where a name in ``needs`` is no worker itself, KeyError; where order matters it is the order of the mapping (the document's).
"""

from __future__ import annotations

import graphlib
from collections.abc import Mapping, Sequence

Needs = Mapping[str, Sequence[str]]


def dependents(needs: Needs) -> dict[str, list[str]]:
    """The other direction: worker -> the workers that wait for it, each once per time they name it."""
    after: dict[str, list[str]] = {name: [] for name in needs}
    for name, waits_for in needs.items():
        for need in waits_for:
            after[need].append(name)
    return after


def find_cycle(needs: Needs) -> list[str] | None:
    """A cycle as the path ``[a, b, ..., a]``, where each waits for the one before it; None when there is none."""
    depths = _depths(needs)
    if len(depths) == len(needs):
        return None
    try:
        graphlib.TopologicalSorter(
            {n: [m for m in ms if m not in depths] for n, ms in needs.items() if n not in depths}
        ).prepare()
    except graphlib.CycleError as error:
        cycle: list[str] = error.args[1]
        return _from_first(cycle, needs)
    raise AssertionError("workers that can never start without a cycle among them")


def levels(needs: Needs) -> list[list[str]]:
    """Workers by depth: level 0 waits for nobody, level n for at least one of level n-1. Raises graphlib.CycleError on a cycle."""
    depths = _checked_depths(needs)
    found: list[list[str]] = [[] for _ in range(max(depths.values(), default=-1) + 1)]
    for name in needs:
        found[depths[name]].append(name)
    return found


def topological_order(needs: Needs) -> list[str]:
    """Every worker after all it waits for; the document's own order where that is one. Raises graphlib.CycleError on a cycle."""
    _checked_depths(needs)
    order: dict[str, None] = {}
    for start in needs:
        path = [(start, iter(needs[start]))]
        while path:
            name, rest = path[-1]
            need = None if name in order else next((n for n in rest if n not in order), None)
            if need is not None:
                path.append((need, iter(needs[need])))
            else:
                order[name] = None
                path.pop()
    return list(order)


def critical_path(needs: Needs, durations: Mapping[str, float] | None = None) -> list[str]:
    """The chain of workers that takes longest, first to last; the run cannot be shorter than it.

    ``durations`` are seconds by worker (0 where absent); None counts every worker as 1. Raises graphlib.CycleError on a cycle.
    """
    finish: dict[str, float] = {}
    before: dict[str, str | None] = {}
    for name in topological_order(needs):
        before[name] = max(needs[name], key=finish.__getitem__, default=None)
        own = 1.0 if durations is None else durations.get(name, 0.0)
        finish[name] = own + (finish[last] if (last := before[name]) is not None else 0.0)
    path: list[str] = []
    at = max(finish, key=finish.__getitem__, default=None)
    while at is not None:
        path.append(at)
        at = before[at]
    return path[::-1]


def _depths(needs: Needs) -> dict[str, int]:
    """The depth of every worker that can be reached; those on a cycle, or behind one, are left out."""
    after = dependents(needs)
    waiting = {name: len(waits_for) for name, waits_for in needs.items()}
    depths = {name: 0 for name, count in waiting.items() if not count}
    queue = list(depths)
    for name in queue:  # grows while it is walked
        for follower in after[name]:
            waiting[follower] -= 1
            if not waiting[follower]:
                depths[follower] = depths[name] + 1
                queue.append(follower)
    return depths


def _checked_depths(needs: Needs) -> dict[str, int]:
    depths = _depths(needs)
    if len(depths) < len(needs):
        raise graphlib.CycleError("workers wait for each other in a cycle", find_cycle(needs))
    return depths


def _from_first(cycle: list[str], needs: Needs) -> list[str]:
    """The same cycle, started at the member that comes first in the document."""
    members = set(cycle)
    first = cycle.index(next(name for name in needs if name in members))
    return [*cycle[first:-1], *cycle[:first], cycle[first]]
