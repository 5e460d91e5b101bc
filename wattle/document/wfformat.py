"""WfCommons instances (WfFormat 1.5, https://wfcommons.org/format) as Wattle documents, to rehearse real workflows.

Each task becomes a stand-in of POSIX shell and coreutils that reads its inputs and checks their sizes, sleeps for the measured time and
writes its outputs. What was measured is scaled: time by ``time_scale``, sizes by ``data_scale``.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NoReturn, TypeVar

from wattle.core.template import environment_name
from wattle.document.load import load_value
from wattle.errors import InvalidDocument, InvalidRequest
from wattle.names import as_name

VERSION = "1.5"

_READ = """\
# read every input; fail when one is missing or has another size than it should
cksum {inputs} | {{
  for size in {sizes}; do
    read -r sum got file || {{ echo "an input is missing" >&2; exit 1; }}
    [ "$got" = "$size" ] || {{ echo "input $file has $got bytes, not $size" >&2; exit 1; }}
  done
}}
"""
_SLEEP = "sleep {seconds}\n"
_WRITE = """\
# write every output: its own line again and again, up to its size
awk 'BEGIN {{
  ORS = ""
  for (i = 1; i < ARGC; i += 3) {{
    chunk = ARGV[i + 2] "\\n"; left = ARGV[i + 1] + 0
    while (length(chunk) < 32768 && length(chunk) < left) chunk = chunk chunk
    for (; left > length(chunk); left -= length(chunk)) print chunk > ARGV[i]
    print substr(chunk, 1, left) > ARGV[i]
    close(ARGV[i])
  }}
}}' {outputs}
"""

_T = TypeVar("_T")


@dataclass(slots=True)
class _Task:
    """A task of an instance: files and parents by their ids there."""

    id: str
    name: str
    seconds: float
    reads: list[str]
    writes: list[str]
    parents: list[str]


def convert(
    instance: bytes, *, time_scale: float = 1.0, data_scale: float = 1.0, file: str = "<instance>"
) -> dict[str, Any]:
    """The document of an instance: the same graph, one worker per task.

    Sizes are rounded up to at least one byte. Files that no task writes are left out of ``inputs``, as nobody would make them.
    Raises InvalidDocument for another version or a broken instance, InvalidRequest for a scale that is negative or not finite.
    """
    for name, scale in (("time_scale", time_scale), ("data_scale", data_scale)):
        if not (math.isfinite(scale) and scale >= 0):
            raise InvalidRequest(f"{name} is {scale}; it must be a finite number, 0 or more")
    source = _Instance(instance, file)
    writers = source.writers()
    sizes = {name: max(1, math.ceil(size * data_scale)) for name, size in source.sizes.items()}
    document: dict[str, Any] = {
        "name": as_name(source.name),
        "description": _description(source, writers, time_scale, data_scale),
        "workers": [_worker(task, source.tasks, writers, sizes, time_scale) for task in source.tasks.values()],
    }
    load_value(document, file=file)  # a cycle, for one, is in the instance
    return document


def _description(
    source: _Instance, writers: Mapping[str, tuple[str, str]], time_scale: float, data_scale: float
) -> str:
    given = {name for task in source.tasks.values() for name in task.reads} - writers.keys()
    return (
        f"Stand-in for the WfCommons instance {source.name}: {len(source.tasks)} tasks, run times x {time_scale:g}, "
        f"file sizes x {data_scale:g}. Files that no task writes are left out: {len(given)}."
    )


def _worker(
    task: _Task,
    tasks: Mapping[str, _Task],
    writers: Mapping[str, tuple[str, str]],
    sizes: Mapping[str, int],
    time_scale: float,
) -> dict[str, Any]:
    keys = _Namer("inputs")
    reads = {
        keys.name(name): name for name in dict.fromkeys(task.reads) if name in writers and writers[name][0] != task.name
    }
    producers = {writers[name][0] for name in reads.values()}
    needs = [tasks[parent].name for parent in dict.fromkeys(task.parents) if tasks[parent].name not in producers]
    outputs = {writers[name][1]: name for name in dict.fromkeys(task.writes)}
    script = ""
    if reads:
        inputs = " ".join(f'"${{inputs.{key}}}"' for key in reads)
        script += _READ.format(inputs=inputs, sizes=" ".join(str(sizes[name]) for name in reads.values()))
    if task.seconds * time_scale > 0:
        script += _SLEEP.format(seconds=f"{task.seconds * time_scale:.6f}".rstrip("0").rstrip("."))
    if outputs:
        triples = (f'"${{outputs.{key}}}" {sizes[name]} {_line(task.name, key)}' for key, name in outputs.items())
        script += _WRITE.format(outputs=" ".join(triples))
    worker: dict[str, Any] = {"name": task.name, "script": script or ":\n"}
    if reads:
        worker["inputs"] = {key: "/".join(writers[name]) for key, name in reads.items()}
    if outputs:
        worker["outputs"] = {key: key for key in outputs}
    if needs:
        worker["needs"] = needs
    return worker


def _line(worker: str, output: str) -> str:
    """What a file is filled with: differs by worker and file from the first byte on where it can."""
    digest = hashlib.sha256(f"{worker}/{output}".encode()).digest()
    return base64.urlsafe_b64encode(digest).decode().rstrip("=")


class _Namer:
    """Names by the grammar for foreign ones, unique also as environment variables."""

    def __init__(self, kind: str = "params") -> None:
        self.kind = kind
        self.taken: set[str] = set()
        self.numbers: dict[str, int] = {}  # where counting goes on: thousands of files may be called alike

    def name(self, foreign: str) -> str:
        """A new name like the last part of ``foreign``."""
        base = as_name(foreign.rstrip("/").rsplit("/", 1)[-1][-64:])  # the end of a long one tells more than its start
        name, number = base, self.numbers.get(base, 1)
        while environment_name(self.kind, name) in self.taken:
            number += 1
            name = f"{base[: 64 - len(str(number)) - 1]}-{number}"
        self.numbers[base] = number
        self.taken.add(environment_name(self.kind, name))
        return name


class _Instance:
    """A WfFormat document, read and checked."""

    def __init__(self, instance: bytes, file: str) -> None:
        self.file = file
        try:
            root = json.loads(instance)
        except (ValueError, RecursionError) as error:
            self._fail(f"is no valid JSON: {error}")
        version = self._get(root, "schemaVersion", str, "the instance")
        if version != VERSION:
            self._fail(f"has schemaVersion {version!r}; only WfFormat {VERSION} can be converted")
        self.name = self._get(root, "name", str, "the instance")
        workflow = self._get(root, "workflow", dict, "the instance")
        specification = self._get(workflow, "specification", dict, "workflow")
        execution = self._get(workflow, "execution", dict, "workflow")
        self.seconds = {
            self._get(each, "id", str, "a task of execution"): self._number(
                each, "runtimeInSeconds", "a task of execution"
            )
            for each in self._get(execution, "tasks", list, "workflow.execution")
        }
        self.sizes = {
            self._get(each, "id", str, "a file"): self._number(each, "sizeInBytes", "a file")
            for each in self._get({"files": [], **specification}, "files", list, "workflow.specification")
        }
        namer = _Namer()
        self.tasks: dict[str, _Task] = {}
        for each in self._get(specification, "tasks", list, "workflow.specification"):
            task = self._task(each, namer)
            if task.id in self.tasks:
                self._fail(f"has two tasks with the id {task.id!r}")
            self.tasks[task.id] = task
        self._add_children(specification["tasks"])

    def writers(self) -> dict[str, tuple[str, str]]:
        """File -> the worker that writes it, and what its output is called."""
        found: dict[str, tuple[str, str]] = {}
        for task in self.tasks.values():
            namer = _Namer("outputs")
            for name in dict.fromkeys(task.writes):
                if name in found:
                    self._fail(f"has two tasks that write the file {name!r}: {found[name][0]!r} and {task.name!r}")
                found[name] = (task.name, namer.name(name))
        return found

    def _task(self, raw: object, namer: _Namer) -> _Task:
        id = self._get(raw, "id", str, "a task")
        what = f"task {id!r}"
        if id not in self.seconds:
            self._fail(f"has no run time of {what} in workflow.execution")
        reads, writes = self._texts(raw, "inputFiles", what), self._texts(raw, "outputFiles", what)
        for name in (*reads, *writes):
            if name not in self.sizes:
                self._fail(f"gives no size of the file {name!r} of {what}")
        return _Task(id, namer.name(id), self.seconds[id], reads, writes, self._texts(raw, "parents", what))

    def _add_children(self, raw_tasks: Iterable[object]) -> None:
        """Edges may be given from either end."""
        for task, raw in zip(list(self.tasks.values()), raw_tasks, strict=True):
            children = self._texts(raw, "children", f"task {task.id!r}")
            for other in (*task.parents, *children):
                if other not in self.tasks:
                    self._fail(f"names {other!r} as a parent or child of task {task.id!r}, but there is no such task")
            for child in children:
                self.tasks[child].parents.append(task.id)

    def _get(self, raw: object, key: str, kind: type[_T], what: str) -> _T:
        value = raw.get(key) if isinstance(raw, dict) else None
        if not isinstance(value, kind):
            self._fail(f"has no {key!r} of type {kind.__name__} in {what}")
        return value

    def _number(self, raw: object, key: str, what: str) -> float:
        value = raw.get(key) if isinstance(raw, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**60:
            self._fail(f"has no {key!r} in {what}, or it is no number of 0 or more")
        return float(value)

    def _texts(self, raw: object, key: str, what: str) -> list[str]:
        values = (raw.get(key) if isinstance(raw, dict) else None) or []
        if not isinstance(values, list) or not all(isinstance(each, str) for each in values):
            self._fail(f"has {key!r} of {what} that is no list of ids")
        return list(values)

    def _fail(self, problem: str) -> NoReturn:
        detail = {"file": self.file, "line": None, "column": None, "worker": None, "message": problem, "fix": None}
        raise InvalidDocument(f"{self.file}: the WfFormat instance {problem}", detail=[detail])
