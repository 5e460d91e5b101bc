"""Which node a ready worker goes to: plain functions over what the coordinator knows of its nodes.

ready -> feasible -> rank -> place. A worker's Requirement says where it could ever run; workers with equal requirements wait in one
heap by priority and age, so that when one finds no room the others of its kind need not be looked at.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from wattle.core.model import NodeInfo, TaskId, WorkerSpec
from wattle.values import value

MAX_PREFETCH = 256
"""Tasks sent ahead to one node beyond its slots, at most. Chosen so that one batch stays well under a megabyte."""

MAX_CANDIDATES = 256
"""Requirements whose candidate nodes are kept from one round of placing to the next, at most."""


class NodeStatus(StrEnum):
    """What a coordinator may expect of a node."""

    READY = "ready"
    DRAINING = "draining"
    UNREACHABLE = "unreachable"
    LOST = "lost"


@dataclass(slots=True)
class Node:
    """A runtime as its coordinator sees it. ``tasks`` are its open attempts with the resources they are promised.

    Those of them in ``ahead`` wait there for others (core/ahead.py), and take up nothing until it is their turn.
    """

    info: NodeInfo
    status: NodeStatus
    changed: list[str]  # the pool's list of nodes that may have room anew
    tasks: dict[TaskId, Mapping[str, float]] = field(default_factory=dict)
    cancels: dict[TaskId, int] = field(
        default_factory=dict
    )  # orders to end a task, not answered yet, with their epochs
    ending: set[TaskId] = field(default_factory=set)  # ordered to end there, until it tells the end
    claims: dict[str, int] = field(
        default_factory=dict
    )  # runs to be claimed there, not answered yet, with their epochs
    ahead: set[TaskId] = field(default_factory=set)
    again: set[TaskId] = field(
        default_factory=set
    )  # open attempts it turned out not to hold: sent again until answered
    passed: dict[TaskId, str] = field(
        default_factory=dict
    )  # open attempts it will not start any more, and why; it is yet to tell whether they have ended there
    used: dict[str, float] = field(default_factory=dict)
    lost_at: float | None = None  # when an unreachable node is given up
    resend_at: float | None = None
    resend_delay: float = 0.0
    hold_until: float | None = None  # nothing new before this time, after it handed something back
    hold_delay: float = 0.0
    mean_seconds: float | None = None  # running mean of how long tasks take there

    def take(self, task: TaskId, resources: Mapping[str, float], *, ahead: bool = False) -> None:
        """Book an attempt on the node, perhaps ahead of its turn; does nothing when it is booked already."""
        if task in self.tasks:
            return
        self.tasks[task] = resources
        if ahead:
            self.ahead.add(task)
        else:
            self._use(resources, 1)

    def turn(self, task: TaskId) -> None:
        """What an attempt waited for there has succeeded; does nothing for one that did not wait."""
        if task in self.ahead:
            self.ahead.discard(task)
            self._use(self.tasks[task], 1)

    def _use(self, resources: Mapping[str, float], sign: int) -> None:
        for name, amount in resources.items():
            self.used[name] = self.used.get(name, 0.0) + sign * amount

    def release(self, task: TaskId) -> None:
        """Undo ``take``; does nothing when it is not booked."""
        self.again.discard(task)
        self.passed.pop(task, None)
        resources = self.tasks.pop(task, None)
        if resources is None:
            return
        if task in self.ahead:
            self.ahead.discard(task)
        else:
            self._use(resources, -1)
        if not self.tasks:
            self.used.clear()  # so that rounding errors never add up
        self.changed.append(self.info.name)

    def learn_duration(self, seconds: float) -> None:
        """Let the running mean follow: each task counts a fifth."""
        self.mean_seconds = seconds if self.mean_seconds is None else 0.8 * self.mean_seconds + 0.2 * seconds

    def prefetch(self, window: float) -> int:
        """Tasks to send ahead so that the node has ``window`` seconds of work beyond what fills its slots; 0 for longer tasks."""
        if self.mean_seconds is None or self.mean_seconds >= window:
            return 0
        return min(MAX_PREFETCH, int(self.info.slots * window / max(self.mean_seconds, 1e-4)))


@value(frozen=True, slots=True)
class Requirement:
    """What a worker asks of a node; equal requirements share a queue."""

    resources: tuple[tuple[str, float], ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    node: str | None = None

    @classmethod
    def of(cls, spec: WorkerSpec) -> Requirement:
        """The requirement of a worker."""
        return cls(tuple(sorted(spec.resources.items())), tuple(sorted(spec.labels.items())), spec.node)

    def misfit(self, info: NodeInfo) -> str | None:
        """Why the node could never run it, or None when it could."""
        if self.node is not None and self.node != info.name:
            return f"is not {self.node}"
        for key, wanted in self.labels:
            if key not in info.labels:
                return f"has no label {key}={wanted}"
            if info.labels[key] != wanted:
                return f"has label {key}={info.labels[key]}, not {wanted}"
        for name, amount in self.resources:
            if amount > info.resources.get(name, 0.0):
                return f"has {info.resources.get(name, 0.0):g} {name}, not {amount:g}"
        return None


ANYTHING = Requirement()
"""What every node fulfils."""


def has_room(node: Node, requirement: Requirement, window: float) -> bool:
    """Whether the node can be given one more such task now, in a slot or ahead of time; it must fit at all."""
    if node.status is not NodeStatus.READY or node.hold_until is not None:
        return False
    ahead = len(node.tasks) - len(node.ahead) - node.info.slots
    if ahead >= 0:
        return ahead < node.prefetch(window)
    used, have = node.used, node.info.resources
    for name, amount in requirement.resources:  # noqa: SIM110  # a generator costs more here, where placing spends its time
        if used.get(name, 0.0) + amount > have.get(name, 0.0) + 1e-9:
            return False
    return True


def load(node: Node) -> float:
    """Open attempts per slot: the rank of a node, least first."""
    return (len(node.tasks) - len(node.ahead)) / max(1, node.info.slots)


class Candidates:
    """The nodes with room for one requirement, least loaded first. Entries go out of date and are checked when they come up."""

    def __init__(self, requirement: Requirement) -> None:
        self.requirement = requirement
        self.seen = 0  # how much of the pool's list of changes is in
        self._heap: list[tuple[float, str]] = []
        self._ranks: dict[str, float] = {}  # node -> the rank of its one valid entry

    def __len__(self) -> int:
        return len(self._heap)

    def add(self, node: Node, window: float) -> None:
        """Take in a node that may have room anew."""
        name, rank = node.info.name, load(node)
        if self._ranks.get(name) == rank or self.requirement.misfit(node.info) is not None:
            return
        if has_room(node, self.requirement, window):
            self._ranks[name] = rank
            heapq.heappush(self._heap, (rank, name))

    def first(self, nodes: Mapping[str, Node], window: float) -> Node | None:
        """The least loaded node that has room."""
        while self._heap:
            rank, name = self._heap[0]
            node = nodes[name]
            now = load(node)
            if self._ranks.get(name) != rank:
                heapq.heappop(self._heap)  # it has a newer entry, or has been found full
            elif not has_room(node, self.requirement, window):
                heapq.heappop(self._heap)
                del self._ranks[name]
            elif now != rank:  # it was given something since: put it where it belongs now
                self._ranks[name] = now
                heapq.heapreplace(self._heap, (now, name))
            else:
                return node
        return None


class Pool:
    """All nodes, and the candidates for the requirements in use: kept from round to round, so that placing costs nothing per node.

    Whatever may give a node room is noted in ``changed``; candidates catch up with that list when they are asked.
    """

    def __init__(self) -> None:
        self.nodes: dict[str, Node] = {}
        self.changed: list[str] = []
        self._candidates: dict[Requirement, Candidates] = {}

    def refit(self) -> None:
        """Start over: what nodes have or are called has changed."""
        self.changed.clear()
        self._candidates.clear()

    def best(self, requirement: Requirement, near: Mapping[str, int], window: float) -> Node | None:
        """The node to use: the one with most input bytes at hand (``near``: node -> bytes) that has room, else the least loaded."""
        names = [requirement.node] if requirement.node is not None else sorted(near, key=lambda n: (-near[n], n))
        for name in names:
            node = self.nodes.get(name)
            if node is not None and requirement.misfit(node.info) is None and has_room(node, requirement, window):
                return node
        if requirement.node is not None:
            return None
        return self._current(requirement, window).first(self.nodes, window)

    def _current(self, requirement: Requirement, window: float) -> Candidates:
        if len(self.changed) > 4 * len(self.nodes) + 1000 or len(self._candidates) > MAX_CANDIDATES:
            self.refit()
        candidates = self._candidates.get(requirement)
        if candidates is None or len(candidates) > 2 * len(self.nodes) + 100:
            candidates = self._candidates[requirement] = Candidates(requirement)
            for node in self.nodes.values():
                candidates.add(node, window)
        elif candidates.seen < len(self.changed):
            for name in set(self.changed[candidates.seen :]):
                candidates.add(self.nodes[name], window)
        candidates.seen = len(self.changed)
        return candidates


Entry = tuple[int, int, int, str, str]
"""A waiting worker: (-priority, the run's order of arrival, the worker's place in its document, run, worker)."""


class ReadyQueue:
    """Workers that may start, one heap per requirement. An entry may be out of date: look at the worker before using it."""

    def __init__(self) -> None:
        self._heaps: dict[Requirement, list[Entry]] = {}

    def push(self, requirement: Requirement, entry: Entry) -> None:
        """Add a waiting worker."""
        heapq.heappush(self._heaps.setdefault(requirement, []), entry)

    def entries(self) -> Iterator[Entry]:
        """Everything that waits, in no particular order."""
        for heap in self._heaps.values():
            yield from heap

    def heads(self) -> list[tuple[Entry, Requirement]]:
        """The first of each heap, as a heap itself: what a round of placing starts from."""
        heads = [(heap[0], requirement) for requirement, heap in self._heaps.items()]
        heapq.heapify(heads)
        return heads

    def drop(self, requirement: Requirement) -> Entry | None:
        """Remove the first of a heap, and return the one that comes up."""
        heap = self._heaps[requirement]
        heapq.heappop(heap)
        if heap:
            return heap[0]
        del self._heaps[requirement]
        return None
