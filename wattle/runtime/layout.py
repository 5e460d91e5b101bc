"""Where everything of a task is on its node, and the texts its process is started with. Computes paths and texts.

::

    <data>/logs/<run>/<worker>.<attempt>.<stdout or stderr>     what the task printed
    <data>/work/<run>/<worker>.<attempt>/                       its private folder, where no working_dir is given
    <data>/blobs/<first two digits>/<digest>                    content fetched from other nodes
"""

from __future__ import annotations

import os
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
        return Path(f"{self.data}/logs/{_name(task)}.{stream}")

    def work(self, task: TaskId) -> Path:
        """A task's private folder."""
        return Path(f"{self.data}/work/{_name(task)}")

    def of_run(self, run: str) -> tuple[Path, Path]:
        """The folders that hold everything of a run, and of no other: its logs, and its tasks' private folders."""
        return self.data / "logs" / run, self.data / "work" / run

    def blob(self, digest: str) -> Path:
        """Where a fetched copy of some content is kept."""
        return self.data / "blobs" / digest[:2] / digest


@dataclass(frozen=True, slots=True)
class Layout:
    """A task made concrete on this node: every path absolute, every reference filled in. ``env`` adds to the node's environment.

    What every task has is text: making Paths would take as long as all the rest.
    """

    cwd: str
    argv: tuple[str, ...]
    env: dict[str, str]
    inputs: dict[str, Path]
    outputs: dict[str, Path]
    stdout: str
    stderr: str


def layout(assignment: Assignment, folders: Folders) -> Layout:
    """Lay a task out. Raises InvalidRequest for a reference without value and for an input whose path leads out of its folder.

    The environment tells the task who it is and where its files are; what the worker's own ``env`` says comes last and wins.
    """
    name = _name(assignment.id)
    values = _parameters(assignment)
    cwd = f"{folders.data}/work/{name}"
    if assignment.working_dir is not None:
        cwd = os.path.join(cwd, render(assignment.working_dir, values))  # an absolute one replaces the private folder
    inputs = {key: Path(cwd, _input_path(key, source)) for key, source in assignment.inputs.items()}
    outputs = {key: Path(cwd, render(text, values)) for key, text in assignment.outputs.items()}
    values |= {("inputs", key): str(path) for key, path in inputs.items()}
    values |= {("outputs", key): str(path) for key, path in outputs.items()}
    argv = tuple(render(text, values) for text in assignment.argv)
    if assignment.script is not None:
        argv = ("sh", "-eu", "-c", render_script(assignment.script), "wattle", *argv)
    env = _identity(assignment)
    for key, value in values.items():
        env[environment_name(*key)] = value
    for variable, text in assignment.env.items():
        env[variable] = render(text, values)
    logs = f"{folders.data}/logs/{name}"
    return Layout(cwd, argv, env, inputs, outputs, f"{logs}.stdout", f"{logs}.stderr")


def _name(task: TaskId) -> str:
    """What a task's files are called, below its run's folder."""
    return f"{task.run}/{task.worker}.{task.attempt}"


def make_folder(path: str | Path) -> None:
    """Make a folder, and those above it where they are missing. Raises OSError."""
    try:
        os.mkdir(path)  # mostly all that is lacking
    except FileExistsError:
        if not os.path.isdir(path):
            raise
    except FileNotFoundError:
        os.makedirs(path, exist_ok=True)


def declared_outputs(assignment: Assignment) -> dict[str, str]:
    """Output name -> path as the document gives it, references filled in; relative ones are relative to the working folder."""
    values = _parameters(assignment)
    return {name: render(text, values) for name, text in assignment.outputs.items()}


def _parameters(assignment: Assignment) -> dict[tuple[str, str], str]:
    values = {("params", name): value for name, value in assignment.params.items()}
    values["run", "id"] = assignment.run
    return values


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
