"""How the parts of a document must fit together: names, dependencies, references, paths, the graph. Linear in the document's size."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from wattle.core.template import environment_name, malformed, references
from wattle.document.dependencies import Dependencies
from wattle.document.model import Document, Worker
from wattle.document.paths import path_problems
from wattle.document.places import Path
from wattle.document.problems import MAX_PROBLEMS, Problem, shown, suggestion, where

ANYWHERE = frozenset({"params", "inputs", "outputs", "run"})
BEFORE_PLACING = frozenset({"params", "run"})
"""References that texts may hold from which a task's folder and files are found."""

NOWHERE: frozenset[str] = frozenset()
"""Of texts that hold none: with one, a label would be asked for that no node has."""

_QUOTING = re.compile(r"[^ \t\r\n!#-&(-\[\]-~]")  # anything but printable ASCII without quotes and backslashes
_RESERVED = re.compile(r"WATTLE_(?:RUN|WORKER|ATTEMPT|WORKFLOW|TASK|(?:INPUT|OUTPUT|PARAM)_.*)")


@dataclass(slots=True)
class Draft:
    """What could be read of a document: all of it, or the part that was valid by itself.

    ``workers`` come with their positions in the document. ``doubtful`` are keys that were there but not valid, as (worker's position or
    None for the workflow, key): nothing that would follow from their absence is worth telling.
    """

    document: Document
    workers: list[tuple[int, Worker]]
    doubtful: set[tuple[int | None, str]] = field(default_factory=set)


def check(draft: Draft) -> list[Problem]:
    """Every way in which the parts do not fit; when there are very many, the first ones."""
    found: list[Problem] = []
    vague = {index for index, key in draft.doubtful if index is not None and key == "outputs"}
    dependencies = Dependencies(draft.workers, vague, found)
    found += _workflow_problems(draft)
    for index, worker in draft.workers:
        if worker.inputs or worker.needs:
            dependencies.add(index, worker)
        _check_worker(draft, index, worker, found)
        if len(found) > MAX_PROBLEMS:
            return found
    found += path_problems(draft.document, draft.workers, str)
    found += dependencies.cycles()
    return found


def words_of(command: str | list[str]) -> list[str]:
    """A command as the words that a shell would make of it; raises ValueError when a quote is not closed."""
    if not isinstance(command, str):
        return command
    return shlex.split(command) if _QUOTING.search(command) else command.split()  # split() is 20 times faster


# --- one worker by itself -------------------------------------------------------------------------------------------


def _workflow_problems(draft: Draft) -> Iterator[Problem]:
    document = draft.document
    yield from _same_variable("params", document.params, ())
    yield from _reserved(document.env_vars, ())
    texts: list[_Text] = [(("env_vars", name), value, BEFORE_PLACING) for name, value in document.env_vars.items()]
    if document.working_dir is not None:
        texts.append((("working_dir",), document.working_dir, BEFORE_PLACING))
    for path, text, allowed in texts:
        yield from _reference_problems(path, text, allowed, None, draft, None)


def _check_worker(draft: Draft, index: int, worker: Worker, found: list[Problem]) -> None:
    base: Path = ("workers", index)
    given, command = worker.model_fields_set, worker.command
    if (command is None) == (worker.script is None):
        problem = "has neither a command nor a script" if command is None else "has both a command and a script"
        found.append(Problem(problem, "Give it one of the two.", base))
    if command is not None and (isinstance(command, list) or _QUOTING.search(command)):
        found += _command_problems(command, base)
    name = draft.document.name
    if "workflow_name" in given and worker.workflow_name not in (None, name) and (None, "name") not in draft.doubtful:
        problem = f"workflow_name is {worker.workflow_name!r}, but the workflow's name is {name!r}"
        found.append(Problem(problem, "Make them equal, or leave workflow_name out.", (*base, "workflow_name")))
    if "inputs" in given and len(worker.inputs) > 1:
        found += _same_variable("inputs", worker.inputs, base)
    if "outputs" in given and len(worker.outputs) > 1:
        found += _same_variable("outputs", worker.outputs, base)
    if "env_vars" in given:
        found += _reserved(worker.env_vars, base)
    if "secrets" in given:
        found += _reserved(worker.secrets, base, "secrets")
        found += _given_twice(worker, base)
    for path, text, allowed in _texts_with_references(worker, given):
        found += _reference_problems(path, text, allowed, worker, draft, index)


def _command_problems(command: str | list[str], base: Path) -> Iterator[Problem]:
    try:
        if not words_of(command)[0]:
            yield Problem("command starts with an empty word", "Name the program to run.", (*base, "command"))
    except ValueError as error:
        problem = f"command cannot be split into words: {str(error).lower()}"
        yield Problem(problem, "Close the quotes, or give the command as a list of words.", (*base, "command"))


def _same_variable(kind: str, names: Iterable[str], base: Path) -> Iterator[Problem]:
    """Names that would be told to a task in one environment variable."""
    taken: dict[str, str] = {}
    for name in names:
        variable = environment_name(kind, name)
        if variable in taken:
            problem = f"{kind} {taken[variable]!r} and {name!r} would both be told in the variable {variable}"
            yield Problem(problem, "Rename one of them.", (*base, kind, name), at_key=True)
        taken.setdefault(variable, name)


def _given_twice(worker: Worker, base: Path) -> Iterator[Problem]:
    for name in worker.secrets:
        if name in worker.env_vars:
            problem = f"the variable {name} is among both secrets and env_vars"
            yield Problem(problem, "Leave it out of one of them.", (*base, "secrets"), at_key=True)


def _reserved(names: Iterable[str], base: Path, key: str = "env_vars") -> list[Problem]:
    return [
        Problem(
            f"{key}.{name} is a variable that Wattle sets itself",
            "Rename it.",
            (*base, "env_vars", name) if key == "env_vars" else (*base, key),
            at_key=True,
        )
        for name in names
        if name.startswith("WATTLE_") and _RESERVED.fullmatch(name)
    ]


# --- references ------------------------------------------------------------------------------------------------------

_Text = tuple[Path, str, frozenset[str]]


def _texts_with_references(worker: Worker, given: set[str]) -> list[_Text]:
    """The texts of a worker that may hold references and seem to, with the kinds of references that make sense there."""
    found: list[_Text] = []
    command = worker.command
    if isinstance(command, list):
        found += [(("command", number), text, ANYWHERE) for number, text in enumerate(command) if "${" in text]
    elif command is not None and "${" in command:
        found.append((("command",), command, ANYWHERE))
    if "args" in given:
        found += [(("args", number), text, ANYWHERE) for number, text in enumerate(worker.args) if "${" in text]
    if worker.script is not None and "${" in worker.script:
        found.append((("script",), worker.script, ANYWHERE))
    if "env_vars" in given:
        found += [(("env_vars", name), text, ANYWHERE) for name, text in worker.env_vars.items() if "${" in text]
    if worker.working_dir is not None and "${" in worker.working_dir:
        found.append((("working_dir",), worker.working_dir, BEFORE_PLACING))
    if "outputs" in given:
        found += [(("outputs", name), text, BEFORE_PLACING) for name, text in worker.outputs.items() if "${" in text]
    if "place" in given:
        labels = worker.place.labels
        found += [(("place", "labels", name), text, NOWHERE) for name, text in labels.items() if "${" in text]
    return found


def _reference_problems(
    path: Path, text: str, allowed: frozenset[str], worker: Worker | None, draft: Draft, index: int | None
) -> Iterator[Problem]:
    """References to what is not declared, or cannot be known there. ``index`` is None for the workflow's own texts."""
    full: Path = path if index is None else ("workers", index, *path)
    found = references(text)
    if text.count("${") > len(found):
        for part in malformed(text):
            fix = "Write ${params.NAME}, ${inputs.KEY}, ${outputs.KEY} or ${run.id}; or $${ for a plain ${."
            yield Problem(f"{where(path)} holds {shown(part)}, which is no reference", fix, full)
    for reference in dict.fromkeys(found):
        kind, name = reference
        if kind not in allowed:
            problem = f"{where(path)} refers to {reference}, which is not known there"
            fix = "Only ${params.NAME} and ${run.id} are." if allowed else "No reference is: write the value itself."
            yield Problem(problem, fix, full)
            continue
        declared: Mapping[str, object] = draft.document.params
        if worker is not None and kind in ("inputs", "outputs"):
            declared = worker.inputs if kind == "inputs" else worker.outputs
        if kind == "run" or name in declared or (None if kind == "params" else index, kind) in draft.doubtful:
            continue
        owner = "the workflow" if kind == "params" else "it"
        problem = f"{where(path)} refers to {reference}, but {owner} declares no {kind[:-1]} {name!r}"
        yield Problem(problem, suggestion(name, declared, kind), full)
