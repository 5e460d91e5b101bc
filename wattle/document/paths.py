"""The folders and files that a document names."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterable, Iterator

from wattle.document.model import Document, Worker
from wattle.document.places import Path
from wattle.document.problems import Problem, shown

_FILE = re.compile(r"[\w-][\w.-]*")  # the name of a file in the folder itself: nothing to normalize


def path_problems(
    document: Document, workers: Iterable[tuple[int, Worker]], fill: Callable[[str], str]
) -> Iterator[Problem]:
    """Folders that are not absolute, outputs that leave their folder, and files that two outputs would write.

    ``fill`` replaces references: at loading by nothing (equal texts are equal paths), at compiling by the run's parameters.
    """
    shared = None
    if document.working_dir is not None:
        shared = fill(document.working_dir)
        yield from _folder_problems(shared, ("working_dir",))
        shared = posixpath.normpath(shared)
    writers: dict[tuple[int | None, str], tuple[str, str]] = {}  # a private folder's files belong to one worker
    for index, worker in workers:
        if worker.working_dir is None and not worker.outputs:
            continue
        base: Path = ("workers", index)
        folder = shared
        if worker.working_dir is not None:
            folder = posixpath.join(shared or "", fill(worker.working_dir))
            if shared is None:
                yield from _folder_problems(folder, (*base, "working_dir"))
            folder = posixpath.normpath(folder)
        for name, text in worker.outputs.items():
            path = fill(text)
            if not _FILE.fullmatch(path):
                problem = _output_problem(path)
                if problem is not None:
                    fix = "Give the path of a file."
                    yield Problem(f"outputs.{name} is {shown(path)}, {problem}", fix, (*base, "outputs", name))
                    continue
                path = posixpath.normpath(path).replace("//", "/", 1)  # normpath keeps two slashes at the start
            private = folder is None and not path.startswith("/")
            full = path if private else posixpath.join(folder or "", path)
            writer = writers.setdefault((index if private else None, full), (worker.name, name))
            if writer != (worker.name, name):
                problem = f"outputs.{name} writes {shown(full)}, as does output {writer[1]!r} of worker {writer[0]!r}"
                yield Problem(problem, "Give every output a path of its own.", (*base, "outputs", name))


def _folder_problems(folder: str, path: Path) -> Iterator[Problem]:
    if not folder.startswith(("/", "${params.")):
        problem = f"working_dir is {shown(folder)}, but no one folder is current on all nodes"
        yield Problem(problem, "Give an absolute path; or leave it out, for a fresh private folder per task.", path)


def _output_problem(path: str) -> str | None:
    if not path or "\0" in path:
        return "which is no path"
    if path.endswith(("/", "/.", "/..")) or path in (".", ".."):
        return "which is a folder"
    if not path.startswith("/") and posixpath.normpath(path).startswith("../"):
        return "which leads out of the worker's folder"
    return None
