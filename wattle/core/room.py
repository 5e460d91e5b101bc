"""The room on a node: its slots and resources, and which tasks take them up."""

from __future__ import annotations

from collections.abc import Mapping

from wattle.core.model import Assignment, TaskId


def kind_of(assignment: Assignment) -> str | None:
    """The kind of room that a task takes up: one that waits at the spawner takes over room of its own kind the moment that is left.

    None: nobody may, for the outputs are looked at first.
    """
    if assignment.outputs:
        return None
    return ",".join(f"{name}={amount!r}" for name, amount in sorted(assignment.resources.items()))


class Room:
    """``slots`` tasks at once, sharing ``resources``."""

    def __init__(self, slots: int, resources: Mapping[str, float]) -> None:
        self.slots, self.resources = slots, resources
        self.used: dict[str, float] = {}
        self._tasks: dict[TaskId, Mapping[str, float]] = {}

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, task: TaskId) -> bool:
        return task in self._tasks

    @property
    def full(self) -> bool:
        """Whether every slot is taken."""
        return len(self._tasks) >= self.slots

    def holders(self) -> list[TaskId]:
        """The tasks that have room, the oldest first."""
        return list(self._tasks)

    def lacks(self, asked: Mapping[str, float]) -> str:
        """Why ``asked`` could never fit here; empty when it could."""
        for name, amount in asked.items():
            have = self.resources.get(name, 0.0)
            if amount > have:
                return f"the task needs {amount:g} {name}, the node has {have:g}"
        return ""

    def fits(self, asked: Mapping[str, float]) -> bool:
        """Whether there are resources left for ``asked``."""
        return all(
            self.used.get(name, 0.0) + amount <= self.resources.get(name, 0.0) + 1e-9 for name, amount in asked.items()
        )

    def take(self, task: TaskId, asked: Mapping[str, float]) -> None:
        """Give a task its slot and resources."""
        self._tasks[task] = asked
        for name, amount in asked.items():
            self.used[name] = self.used.get(name, 0.0) + amount

    def free(self, task: TaskId) -> None:
        """Undo ``take``; does nothing for a task that has no room."""
        for name, amount in self._tasks.pop(task, {}).items():
            self.used[name] -= amount
        if not self._tasks:
            self.used.clear()  # so that rounding errors never add up
