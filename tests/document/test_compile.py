"""From a document to what is run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from wattle.core.model import Retries
from wattle.document.compile import compile_document, plan
from wattle.document.load import load
from wattle.errors import InvalidDocument, InvalidRequest

PARAMS = """
name: p
params: {who: null, n: 3, path: out.txt}
env_vars: {COMMON: "for ${params.n}"}
workers:
- {name: a, command: "echo 'hi ${params.who}' x", outputs: {o: "${params.path}"}}
- {name: b, script: 'echo "$1 $WATTLE_PARAM_WHO"', args: ["${inputs.i}"], inputs: {i: a/o}}
"""


def test_a_worker_complete() -> None:
    text = """
name: p
working_dir: /w
env_vars: {A: 1, B: 2}
on_failure: continue
priority: 4
mode: levels
workers:
- {name: a, command: "x 'y z'", args: [1], outputs: {o: f}, working_dir: sub, env_vars: {B: 3}, retries: {max: 2, delay: 1m}}
- {name: b, script: s, args: [t], inputs: {i: a/o, j: a/o}, needs: [c, a], working_dir: /abs, priority: 0, on_failure: stop}
- {name: c, command: x, resources: {cpus: 2, memory: 1MB, own: 3}, place: {labels: {l: v}, node: n}, timeout: 5, on_disconnect: stop,
   limits: {memory: 2MB, processes: 3, time: 1m}, sandbox: strict, run_as: nobody}
"""
    workflow = compile_document(load(text))
    a, b, c = workflow.workers.values()
    assert (workflow.name, workflow.mode) == ("p", "levels")
    assert (a.argv, a.script, a.working_dir, a.env) == (("x", "y z", "1"), None, "/w/sub", {"A": "1", "B": "3"})
    assert a.retries == Retries(max=2, delay=60.0)
    assert (a.priority, a.on_failure, a.on_disconnect) == (4, "continue", "continue")
    assert (b.argv, b.script, b.working_dir) == (("t",), "s", "/abs")
    assert b.inputs == {"i": ("a", "o"), "j": ("a", "o")}
    assert b.needs == ("a", "c")
    assert (b.priority, b.on_failure) == (0, "stop")
    assert (b.limits, b.sandbox, b.run_as) == ({}, "none", None)
    assert (c.limits, c.sandbox, c.run_as) == ({"memory": 2e6, "processes": 3, "time": 60}, "strict", "nobody")
    assert (c.resources, c.labels, c.node) == ({"cpus": 2, "memory": 1e6, "own": 3}, {"l": "v"}, "n")
    assert (c.working_dir, c.timeout, c.on_disconnect, c.kill_after) == ("/w", 5, "stop", 10)


def test_each_worker_is_told_the_parameters_that_it_refers_to() -> None:
    a, b = compile_document(load(PARAMS), {"who": "Ada Lovelace", "n": 4}).workers.values()
    assert a.argv == ("echo", "hi ${params.who}", "x")
    assert a.outputs == {"o": "${params.path}"}
    assert a.params == {"who": "Ada Lovelace", "n": "4", "path": "out.txt"}
    assert b.params == {"who": "Ada Lovelace", "n": "4"}


@pytest.mark.parametrize(
    ("value", "text"),
    [("", ""), ("a b", "a b"), (True, "true"), (7, "7"), (0.25, "0.25"), ("${params.n}", "${params.n}")],
)
def test_values_become_texts(value: Any, text: str) -> None:
    assert compile_document(load(PARAMS), {"who": value}).workers["a"].params["who"] == text


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({}, "the parameter 'who' has no default and no value was given. Its parameters: who, n, path"),
        ({"who": None}, "'who' has no default"),
        ({"who": "x", "nn": 1}, "there is no parameter 'nn' (did you mean 'n'?)"),
        ({"who": ["x"]}, "the parameter 'who' is a list; it must be a text, a number or a boolean"),
        ({"who": {}}, "the parameter 'who' is a mapping"),
        ({"who": float("nan")}, "the parameter 'who' is nan"),
        ({"who": 10**5000}, "the parameter 'who' is a very large number"),
        ({"who": "a\0"}, "NUL"),
        ({"who": "x" * 200_000}, "longer than"),
    ],
)
def test_wrong_parameters_are_named(params: Mapping[str, Any], message: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        compile_document(load(PARAMS), params)
    assert message in caught.value.message
    assert "workflow 'p'" in caught.value.message


def test_all_wrong_parameters_are_named_at_once() -> None:
    with pytest.raises(InvalidRequest) as caught:
        compile_document(load(PARAMS), {"x": 1, "n": []})
    assert [each["param"] for each in caught.value.detail] == ["x", "who", "n"]


@pytest.mark.parametrize(
    ("path", "message"),
    [("../x", "leads out"), ("a/", "is a folder"), ("", "is no path"), ("b.txt", "as does output 'o' of worker 'a'")],
)
def test_paths_are_checked_again_once_parameters_are_known(path: str, message: str) -> None:
    text = """
name: p
params: {dir: null, file: null}
working_dir: ${params.dir}
workers:
- {name: a, command: x, outputs: {o: b.txt}}
- {name: b, command: x, outputs: {o: "${params.file}"}}
"""
    with pytest.raises(InvalidDocument) as caught:
        compile_document(load(text), {"dir": "/d", "file": path})
    assert message in caught.value.message
    assert caught.value.detail[0]["worker"] == "b"
    with pytest.raises(InvalidDocument, match="no one folder is current"):
        compile_document(load(text), {"dir": "d", "file": "x"})
    assert compile_document(load(text), {"dir": "/d", "file": "x"}).workers["a"].working_dir == "${params.dir}"


def test_a_folder_that_turns_out_absolute_replaces_the_workflows() -> None:
    text = "name: p\nparams: {d: null}\nworking_dir: /w\nworkers: [{name: a, command: x, working_dir: '${params.d}'}]"
    assert compile_document(load(text), {"d": "/abs"}).workers["a"].working_dir == "${params.d}"
    assert compile_document(load(text), {"d": "rel"}).workers["a"].working_dir == "/w/${params.d}"


DIAMOND = """
name: p
mode: MODE
workers:
- {name: d, command: x, needs: [b, c], resources: {cpus: 1}}
- {name: b, command: x, needs: [a], resources: {cpus: 2, own: 1}}
- {name: c, command: x, inputs: {i: a/o}, resources: {cpus: 3}}
- {name: a, command: x, outputs: {o: o, p: p}}
"""


def test_the_plan() -> None:
    found = plan(load(DIAMOND.replace("MODE", "dependency")))
    assert found.levels == [["a"], ["b", "c"], ["d"]]
    assert found.critical_path == ["a", "b", "d"]
    assert (found.name, found.mode, found.workers, found.inputs, found.outputs) == ("p", "dependency", 4, 1, 2)
    assert found.resources == {"cpus": 6, "own": 1}
    assert found.peak == {"cpus": 5, "own": 1}


def test_the_plan_one_at_a_time() -> None:
    found = plan(load(DIAMOND.replace("MODE", "sequential")))
    assert found.levels == [["a"], ["b"], ["c"], ["d"]]
    assert found.peak == {"cpus": 3, "own": 1}


def test_a_plan_needs_the_parameters_too() -> None:
    with pytest.raises(InvalidRequest, match="'who'"):
        plan(load(PARAMS))
