"""Where everything of a task is on its node, and the texts its process is started with. Computes paths and texts; touches nothing.

::

    <data>/logs/<run>/<worker>.<attempt>.<stdout or stderr>     what the task printed
    <data>/work/<run>/<worker>.<attempt>/                       its private folder, where no working_dir is given
    <data>/blobs/<first two digits>/<digest>                    content fetched from other nodes
"""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from wattle.core.model import Assignment, Input, TaskId
from wattle.core.template import environment_name, render, render_script
from wattle.errors import InvalidRequest

Values = Mapping[tuple[str, str], str]


@dataclass(frozen=True, slots=True)
class Folders:
    """The data folder's parts; ``data`` is made absolute."""

    data: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "data", self.data.absolute())

    def log(self, task: TaskId, stream: str) -> Path:
        """The file that holds a task's stdout or stderr."""
        return self.data / "logs" / task.run / f"{task.worker}.{task.attempt}.{stream}"

    def work(self, task: TaskId) -> Path:
        """A task's private folder."""
        return self.data / "work" / task.run / f"{task.worker}.{task.attempt}"

    def of_run(self, run: str) -> tuple[Path, Path]:
        """The folders that hold everything of a run, and of no other: its logs, and its tasks' private folders."""
        return self.data / "logs" / run, self.data / "work" / run

    def blob(self, digest: str) -> Path:
        """Where a fetched copy of some content is kept."""
        return self.data / "blobs" / digest[:2] / digest


@dataclass(frozen=True, slots=True)
class Layout:
    """A task made concrete on this node: every path absolute, every reference filled in. ``env`` adds to the node's environment."""

    cwd: Path
    argv: tuple[str, ...]
    env: dict[str, str]
    inputs: dict[str, Path]
    outputs: dict[str, Path]
    stdout: Path
    stderr: Path


def layout(assignment: Assignment, folders: Folders) -> Layout:
    """Lay a task out. Raises InvalidRequest for a reference without value and for an input whose path leads out of its folder.

    The environment tells the task who it is and where its files are; what the worker's own ``env`` says comes last and wins.
    """
    task = assignment.id
    values = _parameters(assignment)
    cwd = folders.work(task)
    if assignment.working_dir is not None:
        cwd /= render(assignment.working_dir, values)  # an absolute one replaces the private folder
    inputs = {key: cwd / _input_path(key, source) for key, source in assignment.inputs.items()}
    outputs = {name: cwd / path for name, path in declared_outputs(assignment).items()}
    values |= {("inputs", key): str(path) for key, path in inputs.items()}
    values |= {("outputs", name): str(path) for name, path in outputs.items()}
    argv = tuple(render(text, values) for text in assignment.argv)
    if assignment.script is not None:
        argv = ("sh", "-eu", "-c", render_script(assignment.script), "wattle", *argv)
    env = _identity(assignment) | {environment_name(*name): value for name, value in values.items()}
    env |= {name: render(text, values) for name, text in assignment.env.items()}
    return Layout(cwd, argv, env, inputs, outputs, folders.log(task, "stdout"), folders.log(task, "stderr"))


def declared_outputs(assignment: Assignment) -> dict[str, str]:
    """Output name -> path as the document gives it, references filled in; relative ones are relative to the working folder."""
    values = _parameters(assignment)
    return {name: render(text, values) for name, text in assignment.outputs.items()}


def _parameters(assignment: Assignment) -> dict[tuple[str, str], str]:
    values = {("params", name): value for name, value in assignment.params.items()}
    return values | {("run", "id"): assignment.run}


def _input_path(key: str, source: Input) -> str:
    """Where an input is put: at its own path if that is absolute, else below ``inputs/`` of the working folder."""
    if posixpath.isabs(source.path):
        return source.path
    path = posixpath.normpath(source.path)
    if path.split("/")[0] in ("..", "."):
        raise InvalidRequest(
            f"input {key!r} is {source.path!r} of worker {source.worker!r}, which leads out of its folder"
        )
    return posixpath.join("inputs", source.worker, path)


def _identity(assignment: Assignment) -> dict[str, str]:
    return {
        "WATTLE_RUN": assignment.run,
        "WATTLE_WORKER": assignment.worker,
        "WATTLE_ATTEMPT": str(assignment.attempt),
        "WATTLE_WORKFLOW": assignment.workflow,
        "WATTLE_TASK": str(assignment.id),
    }
