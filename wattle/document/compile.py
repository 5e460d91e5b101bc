"""From a document to what is run: ``compile_document`` for coordinators, ``plan`` for people, ``to_json`` for storing.

Who fills in references: parameters are checked here and handed on with each worker that refers to them; the texts themselves stay as
written. The runtime fills in commands, arguments, environment values, working folders and output paths with ``template.render``
when it starts a task, and scripts with ``template.render_script``, so that values reach the shell as variables only.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import field
from typing import Any

from wattle.core import model as core
from wattle.core.graph import critical_path, levels, topological_order
from wattle.core.template import environment_name, references, render
from wattle.document.check import words_of
from wattle.document.model import MAX_TEXT, Document, Resources, Retries, Worker, as_text
from wattle.document.paths import path_problems
from wattle.document.problems import closest, invalid, shown
from wattle.errors import InvalidRequest
from wattle.values import value

_NO_RETRIES = core.Retries()
_NOTHING: dict[str, Any] = {}
"""What most workers give of most things: one for all, since nobody changes the parts of a spec."""


def compile_document(document: Document, params: Mapping[str, Any] | None = None) -> core.Workflow:
    """The workflow of a loaded document, with the values of its parameters for one run.

    Raises InvalidRequest for parameters that are unknown, missing or no texts, numbers or booleans (``detail`` holds one dict per
    parameter), InvalidDocument when paths that refer to parameters do not fit once these are filled in.
    """
    values = _param_values(document, params or {})
    if document.params:
        _check_filled_paths(document, values)
    common = _Common(document, values)
    return core.Workflow(
        document.name, {worker.name: common.spec(worker) for worker in document.workers}, document.mode
    )


def to_text(document: Document) -> str:
    """The document as JSON text, without a tree of values in between: the text of ``to_json``."""
    return document.model_dump_json(exclude_unset=True)


def to_json(document: Document) -> dict[str, Any]:
    """The document as plain JSON values; ``load_value`` of it gives an equal document."""
    return document.model_dump(mode="json", exclude_unset=True)


@value(frozen=True, slots=True)
class Plan:
    """What a run would do. ``levels`` are workers that may run together, in order; in mode ``sequential`` each is alone.

    ``critical_path`` is the longest chain of workers. ``resources`` are summed over all workers, ``peak`` is the most that one level
    asks for; both leave out what no worker gives.
    """

    name: str
    mode: str
    workers: int
    inputs: int
    outputs: int
    levels: list[list[str]]
    critical_path: list[str]
    resources: dict[str, float] = field(default_factory=dict)
    peak: dict[str, float] = field(default_factory=dict)


def plan(document: Document, params: Mapping[str, Any] | None = None) -> Plan:
    """The plan of a run with these parameters; raises what ``compile_document`` raises."""
    workflow = compile_document(document, params)
    workers = workflow.workers
    needs = {name: spec.needs for name, spec in workers.items()}
    together = [[name] for name in topological_order(needs)] if workflow.mode == "sequential" else levels(needs)
    sums = [_sum(workers[name].resources for name in level) for level in together]
    return Plan(
        name=workflow.name,
        mode=workflow.mode,
        workers=len(workers),
        inputs=sum(len(spec.inputs) for spec in workers.values()),
        outputs=sum(len(spec.outputs) for spec in workers.values()),
        levels=together,
        critical_path=critical_path(needs),
        resources=_sum(sums),
        peak={name: max(each.get(name, 0.0) for each in sums) for name in _sum(sums)},
    )


def _sum(amounts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    total: Counter[str] = Counter()
    for each in amounts:
        for name, amount in each.items():
            total[name] += amount  # type: ignore[assignment]  # Counter adds floats as well as it counts
    return dict(total)


# --- parameters ------------------------------------------------------------------------------------------------------


def _param_values(document: Document, given: Mapping[str, Any]) -> dict[str, str]:
    """Every parameter's text for this run."""
    values: dict[str, str] = {}
    problems = [_unknown(name, document) for name in given if name not in document.params]
    for name, default in document.params.items():
        value = given.get(name, default)
        if value is None:
            problems.append((name, f"the parameter {name!r} has no default and no value was given"))
        elif not isinstance(text := as_text(value), str):
            problems.append(
                (name, f"the parameter {name!r} is {shown(value)}; it must be a text, a number or a boolean")
            )
        elif "\0" in text or len(text) > MAX_TEXT:
            problems.append((name, f"the parameter {name!r} holds a NUL character or is longer than {MAX_TEXT:,}"))
        else:
            values[name] = text
    if problems:
        declared = ", ".join(document.params) or "none"
        message = "; ".join(message for _, message in problems)
        detail = [{"param": name, "message": message} for name, message in problems]
        raise InvalidRequest(f"workflow {document.name!r}: {message}. Its parameters: {declared}.", detail=detail)
    return values


def _unknown(name: object, document: Document) -> tuple[str, str]:
    match = closest(str(name), document.params)
    return str(name), f"there is no parameter {shown(name)}" + (f" (did you mean {match!r}?)" if match else "")


def _path_values(params: Mapping[str, str]) -> dict[tuple[str, str], str]:
    """What is known of paths before a run has its id."""
    return {("params", name): value for name, value in params.items()} | {("run", "id"): "${run.id}"}


def _check_filled_paths(document: Document, params: Mapping[str, str]) -> None:
    values = _path_values(params)
    problems = list(path_problems(document, enumerate(document.workers), lambda text: render(text, values)))
    if problems:
        raise invalid(problems, document.name, to_json(document))


# --- workers ---------------------------------------------------------------------------------------------------------


class _Common:
    """What the workers of one document share, and the making of their specs."""

    def __init__(self, document: Document, params: dict[str, str]) -> None:
        self.working_dir, self.priority, self.on_failure = document.working_dir, document.priority, document.on_failure
        self.params = params
        self.path_values = _path_values(params)
        self.env = dict(document.env_vars)
        self.resources: dict[tuple[tuple[str, float], ...], dict[str, float]] = {}  # most workers ask for the same
        self.variables = {environment_name("params", name): name for name in params}

    def spec(self, worker: Worker) -> core.WorkerSpec:
        """A worker, complete."""
        given = worker.model_fields_set
        inputs = {key: _source(text) for key, text in worker.inputs.items()} if "inputs" in given else _NOTHING
        argv: tuple[str, ...] = () if worker.command is None else tuple(words_of(worker.command))
        if "args" in given:
            argv += tuple(worker.args)
        needs: tuple[str, ...] = ()
        if inputs or "needs" in given:
            needs = tuple(dict.fromkeys([producer for producer, _ in inputs.values()] + worker.needs))
        env = {**self.env, **worker.env_vars} if "env_vars" in given else self.env
        working_dir = self._working_dir(worker) if "working_dir" in given else self.working_dir
        priority, on_failure = worker.priority, worker.on_failure
        return core.WorkerSpec(  # in the order of its fields: naming them takes half as long again
            worker.name,
            argv,
            worker.script,
            env,
            dict(worker.secrets) if "secrets" in given else _NOTHING,
            working_dir,
            inputs,
            dict(worker.outputs) if "outputs" in given else _NOTHING,
            needs,
            self._used(worker, argv, env, working_dir) if self.params else _NOTHING,
            _retries(worker.retries) if "retries" in given else _NO_RETRIES,
            worker.timeout,
            worker.kill_after,
            self._resources(worker.resources) if "resources" in given else _NOTHING,
            worker.limits.model_dump(exclude_none=True) if "limits" in given else _NOTHING,
            worker.sandbox,
            worker.run_as,
            dict(worker.place.labels) if "place" in given else _NOTHING,
            worker.place.node if "place" in given else None,
            self.priority if priority is None else priority,
            self.on_failure if on_failure is None else on_failure,
            worker.on_disconnect,
        )

    def _working_dir(self, worker: Worker) -> str | None:
        if worker.working_dir is None:
            return self.working_dir
        if self.working_dir is None or render(worker.working_dir, self.path_values).startswith("/"):
            return worker.working_dir
        return posixpath.join(self.working_dir, worker.working_dir)

    def _resources(self, resources: Resources) -> dict[str, float]:
        given: dict[str, float] = resources.model_dump(exclude_none=True)
        return self.resources.setdefault(tuple(given.items()), given)

    def _used(
        self, worker: Worker, argv: Iterable[str], env: Mapping[str, str], working_dir: str | None
    ) -> dict[str, str]:
        """The parameters that some text refers to, by reference or by the variable that holds its value."""
        joined = "\0".join([*argv, worker.script or "", *env.values(), working_dir or "", *worker.outputs.values()])
        used = {reference.name for reference in references(joined) if reference.kind == "params"}
        if "WATTLE_PARAM_" in joined:
            used |= {name for variable, name in self.variables.items() if variable in joined}
        return {name: self.params[name] for name in self.params if name in used}


def _retries(given: Retries) -> core.Retries:
    return core.Retries(given.max, given.delay, given.backoff, given.max_delay, given.jitter)


def _source(text: str) -> tuple[str, str]:
    producer, _, output = text.partition("/")
    return producer, output
