"""What is said about documents that are wrong: where, about which worker, and how to mend it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from wattle.document.load import load, load_value
from wattle.document.model import MAX_ENTRIES, MAX_WORKERS
from wattle.document.problems import MAX_PROBLEMS
from wattle.errors import InvalidDocument

MANY = dict.fromkeys(map(str, range(MAX_ENTRIES + 1)))

Expected = tuple[int | None, int | None, str | None, str]


def problems_of(text: str | bytes) -> list[dict[str, Any]]:
    with pytest.raises(InvalidDocument) as caught:
        load(text, file="f.yaml")
    error = caught.value
    assert error.code == "INVALID_DOCUMENT"
    assert len(error.message.splitlines()) >= len(error.detail)
    for problem in error.detail:
        assert problem.keys() == {"file", "line", "column", "worker", "message", "fix"}
        assert problem["file"] == "f.yaml"
        assert "\n" not in problem["message"]
    return error.detail


def told(problem: dict[str, Any]) -> str:
    return f"{problem['message']}. {problem['fix'] or ''}"


def worker(*lines: str) -> str:
    """A document with one more worker after a good one; its lines start at line 5."""
    return "\n".join(
        [
            "name: p",
            "workers:",
            "- {name: good, command: x, outputs: {o: o.txt}}",
            "- name: w",
            *(f"  {line}" for line in lines),
        ]
    )


ONE_PROBLEM: list[tuple[str, Expected]] = [
    # the whole
    ("[1]", (1, 1, None, "the document is a list, not a mapping")),
    ("name: p", (1, 1, None, "'workers' is missing. A workflow has a list of at least one worker")),
    ("workers: [{name: a, command: x}]", (1, 1, None, "'name' is missing. Give it a name")),
    ("name: p\nworkers: []", (2, 10, None, "workers is empty. A workflow has at least one worker")),
    ("name: p\nworkers: {a: 1}", (2, 10, None, "workers is a mapping, not a list")),
    ("name: p\nworkers: [a]", (2, 11, None, "workers[0] is 'a', not a mapping")),
    ("name: p q\nworkers: [{name: a, command: x}]", (1, 7, None, "name is no name: 'p q' holds ' '")),
    ("name: true\nworkers: [{name: a, command: x}]", (1, 7, None, "name is true, not a text. Quote it")),
    ("name: p\nworkers: [{name: 5, command: x}]", (2, 18, None, "name is 5, not a text. Quote it")),
    ("name: p\nmoode: levels\nworkers: [{name: a, command: x}]", (2, 1, None, "unknown key 'moode'. Did you mean 'mode'?")),
    ("name: p\nmode: level\nworkers: [{name: a, command: x}]", (2, 7, None, "it must be 'dependency', 'levels' or 'sequential'")),
    ("name: p\npriority: 1.5\nworkers: [{name: a, command: x}]", (2, 11, None, "priority is 1.5, not a whole number")),
    ("name: p\nname: q\nworkers: [{name: a, command: x}]", (2, 1, None, "the key 'name' stands here a second time")),
    ('{"name": "p",\n\t"workers": [{"name": "a", "command": "x", "name": "b"}]}', (2, 44, "b", "the key 'name' stands here a second")),
    ("name: p\nparams: {a: [1]}\nworkers: [{name: a, command: x}]", (2, 13, None, "params.a is a list, not a text")),
    ("name: p\nparams: {a.b: 1, a-b: 2}\nworkers: [{name: a, command: x}]", (2, 18, None, "both be told in the variable WATTLE_PARAM_A_B")),
    ("name: p\nworking_dir: data\nworkers: [{name: a, command: x}]", (2, 14, None, "working_dir is 'data', but no one folder is current")),
    ("name: p\nworking_dir: '/a/${inputs.x}'\nworkers: [{name: a, command: x}]", (2, 14, None, "which is not known there")),
    ("name: p\nenv_vars: {A: '${outputs.x}'}\nworkers: [{name: a, command: x}]", (2, 15, None, "which is not known there")),
    ("name: p\nenv_vars: {WATTLE_RUN: x}\nworkers: [{name: a, command: x}]", (2, 12, None, "env_vars.WATTLE_RUN is a variable")),
    ("name: p\nworkers: [{name: a, command: x}, {name: a, command: x}]", (2, 41, "a", "workers 1 and 2 of the list have it")),
    ('{"name": "p", "workers": [{"name": "a", "command": "x\\u0000"}]}', (1, 52, "a", "command holds a NUL character")),
    ('{"name": "p", "workers": [{"name": "a", "command": "x", "env_vars": {"A": "\\u0000"}}]}', (1, 75, "a", "holds a NUL character")),
    ('{"name": "p", "workers": [{"name": "a", "script": "\\ud800"}]}', (1, 51, "a", "script is no valid Unicode")),
    ("name: p\nworkers: [{name: a, command: x", (2, 31, None, "no valid YAML")),
    # one worker
    (worker("comand: x", "script: y"), (5, 3, "w", "unknown key 'comand'. Did you mean 'command'?")),
    (worker("description: x"), (4, 3, "w", "has neither a command nor a script. Give it one of the two")),
    (worker("command: x", "script: y"), (4, 3, "w", "has both a command and a script")),
    (worker("command: echo 'x"), (5, 12, "w", "command cannot be split into words: no closing quotation. Close the quotes")),
    (worker("command: \"'' x\""), (5, 12, "w", "command starts with an empty word")),
    (worker("command: ' '"), (5, 12, "w", "command is empty")),
    (worker("command: []"), (5, 12, "w", "command is empty")),
    (worker("command: [a, {b: 1}]"), (5, 12, "w", "command has word 1 that is no text")),
    (worker("command: 5"), (5, 12, "w", "command is no text and no list of texts")),
    (worker("command: x", "args: [a, null]"), (6, 13, "w", "args[1] is null. Write a text, or '' for an empty one")),
    (worker("command: x", "args: a"), (6, 9, "w", "args is 'a', not a list")),
    (worker("command: x", "env_vars: {1A: x}"), (6, 14, "w", "'1A'. Use letters, digits and '_', and no digit first")),
    (worker("command: x", "workflow_name: q"), (6, 18, "w", "workflow_name is 'q', but the workflow's name is 'p'")),
    (worker("command: x", "retries: {max: 1001}"), (6, 18, "w", "retries.max is 1001; it must be at most 1,000")),
    (worker("command: x", "retries: -1"), (6, 12, "w", "retries.max is")),
    (worker("command: x", "retries: {mx: 1}"), (6, 13, "w", "unknown key 'mx'. Did you mean 'max'?")),
    (worker("command: x", "retries: {backoff: 0.5}"), (6, 22, "w", "retries.backoff is 0.5; it must be at least 1")),
    (worker("command: x", "timeout: 0"), (6, 12, "w", "timeout is 0; it must be more than 0")),
    (worker("command: x", "timeout: soon"), (6, 12, "w", "timeout is 'soon', which is no duration. Write seconds as a number, or")),
    (worker("command: x", "timeout: '90'"), (6, 12, "w", "timeout is '90', which is no duration")),
    (worker("command: x", "kill_after: -1s"), (6, 15, "w", "kill_after is '-1s', which is no duration")),
    (worker("command: x", "timeout: 1e999"), (6, 12, "w", "timeout is inf")),
    (worker("command: x", "resources: {memory: 2 GB RAM}"), (6, 23, "w", "resources.memory is '2 GB RAM', which is no size")),
    (worker("command: x", "resources: {cpus: -1}"), (6, 21, "w", "resources.cpus is -1; it must be at least 0")),
    (worker("command: x", "resources: {fpga: two}"), (6, 21, "w", "resources.fpga is 'two', not a number")),
    (worker("command: x", "resources: {my gpu: 1}"), (6, 15, "w", "resources.my gpu is no name: 'my gpu' holds ' '")),
    (worker("command: x", "place: {node: '*'}"), (6, 17, "w", "place.node is no name: '*' must start with a letter or a digit")),
    (worker("command: x", "place: {label: {a: b}}"), (6, 11, "w", "unknown key 'label'. Did you mean 'labels'?")),
    (worker("command: x", "on_failure: retry"), (6, 15, "w", "on_failure is 'retry'; it must be 'stop' or 'continue'")),
    # inputs, outputs, needs
    (worker("command: x", "inputs: {d: good}"), (6, 15, "w", "inputs.d is 'good', not the output of a worker. Write it as")),
    (worker("command: x", "inputs: {d: ../x}"), (6, 15, "w", "inputs.d is '../x', not the output of a worker")),
    (worker("command: x", "inputs: {d: good/oo}"), (6, 15, "w", "'good' declares no output 'oo'; it declares: o. Did you mean 'o'?")),
    (worker("command: x", "inputs: {d: god/o}"), (6, 15, "w", "reads 'god/o', but there is no worker 'god'. Did you mean 'good'?")),
    (worker("command: x", "inputs: {d: w/o}"), (6, 15, "w", "a worker cannot wait for itself")),
    (worker("command: x", "inputs: {a.b: good/o, A-b: good/o}"), (6, 25, "w", "both be told in the variable WATTLE_INPUT_A_B")),
    (worker("command: x", "needs: [good, zzz]"), (6, 17, "w", "needs[1] is 'zzz', but there is no worker 'zzz'. The workers are: good, w")),
    (worker("command: x", "needs: [w]"), (6, 11, "w", "a worker cannot wait for itself")),
    (worker("command: x", "outputs: {o: ../x}"), (6, 16, "w", "outputs.o is '../x', which leads out of the worker's folder")),
    (worker("command: x", "outputs: {o: a/../../x}"), (6, 16, "w", "which leads out of the worker's folder")),
    (worker("command: x", "outputs: {o: a/}"), (6, 16, "w", "which is a folder")),
    (worker("command: x", "outputs: {o: ''}"), (6, 16, "w", "outputs.o is empty")),
    (worker("command: x", "outputs: {o: a, p: ./a}"), (6, 22, "w", "outputs.p writes 'a', as does output 'o' of worker 'w'")),
    (worker("command: x", "working_dir: here"), (6, 16, "w", "working_dir is 'here', but no one folder is current on all nodes")),
    # references
    (worker("command: x ${params.no}"), (5, 12, "w", "command refers to ${params.no}, but the workflow declares no param 'no'")),
    (worker("command: [x, '${inputs.d}']"), (5, 16, "w", "command[1] refers to ${inputs.d}, but it declares no input 'd'")),
    (worker("script: cat ${outputs.out}", "outputs: {oout: x}"), (5, 11, "w", "declares no output 'out'. Did you mean 'oout'?")),
    (worker("command: x", "args: ['${params.}']"), (6, 10, "w", "args[0] holds '${params.}', which is no reference")),
    (worker("command: x", "outputs: {o: '${inputs.d}'}"), (6, 16, "w", "outputs.o refers to ${inputs.d}, which is not known there")),
    (worker("command: x", "place: {labels: {l: '${params.p}'}}"), (6, 23, "w", "refers to ${params.p}, which is not known there")),
    (worker("command: x", "env_vars: {A: '${run.name}'}"), (6, 17, "w", "env_vars.A holds '${run.name}', which is no reference")),
]  # fmt: skip


@pytest.mark.parametrize(("text", "expected"), ONE_PROBLEM)
def test_one_problem(text: str, expected: Expected) -> None:
    found = problems_of(text)
    assert len(found) == 1, found
    line, column, name, message = expected
    assert (found[0]["line"], found[0]["column"], found[0]["worker"]) == (line, column, name)
    assert message in told(found[0])


def test_everything_is_reported_at_once_and_in_order() -> None:
    found = problems_of(
        worker(
            "command: cat '${params.no}",
            "timeout: -1",
            "inputs: {d: good/p}",
            "needs: [good, no]",
            "outputs: {a: x, b: x}",
            "args: [null]",
        )
    )
    assert [problem["line"] for problem in found] == [5, 5, 6, 7, 8, 9, 10]
    assert {problem["worker"] for problem in found} == {"w"}


def test_the_message_has_one_line_per_problem_with_place_worker_and_fix() -> None:
    with pytest.raises(InvalidDocument) as caught:
        load(worker("command: x", "inputs: {d: good/p}", "timeout: 0"), file="flow.yaml")
    assert caught.value.message.splitlines() == [
        "flow.yaml:6:15: worker 'w': inputs.d reads 'good/p', but 'good' declares no output 'p'; it declares: o. The outputs are: o.",
        "flow.yaml:7:12: worker 'w': timeout is 0; it must be more than 0.",
    ]


def test_a_wrong_value_brings_no_follow_up_problems() -> None:
    """The outputs, inputs and params below were meant, so that nothing that refers to them is wrong."""
    text = """
name: 5
params: {p: [1]}
workers:
- name: a
  workflow_name: five
  command: [x, {}, "${params.p}"]
  outputs: {o: 7}
- name: b
  script: cat ${inputs.d} ${inputs.e}
  inputs: {d: a/o, e: 9}
"""
    assert [problem["line"] for problem in problems_of(text)] == [2, 3, 7, 8, 11]


def test_cycles_are_shown_as_paths() -> None:
    workers: list[dict[str, Any]] = [
        {"name": "a", "command": "x", "needs": ["c"], "outputs": {"o": "o"}},
        {"name": "b", "command": "x", "inputs": {"i": "a/o"}},
        {"name": "c", "command": "x", "needs": ["b"]},
        {"name": "d", "command": "x", "needs": ["e", "a"]},
        {"name": "e", "command": "x", "needs": ["d"]},
    ]
    text = json.dumps({"name": "p", "workers": workers}, indent=1)
    found = problems_of(text)
    assert [problem["message"].split(": ")[1] for problem in found] == ["a -> b -> c -> a", "d -> e -> d"]
    assert [problem["worker"] for problem in found] == ["a", "d"]
    assert text.splitlines()[found[0]["line"] - 1].strip() == '"c"'


def test_a_long_cycle_is_shortened() -> None:
    count = 500
    workers = [{"name": f"w{n}", "command": "x", "needs": [f"w{(n - 1) % count}"]} for n in range(count)]
    message = problems_of(json.dumps({"name": "p", "workers": workers}))[0]["message"]
    assert "w0 -> w1 -> " in message
    assert message.endswith("-> w499 -> w0")
    assert len(message) < 200


@pytest.mark.parametrize(
    ("top", "first", "second", "clash"),
    [
        ("", "working_dir: /d, outputs: {o: /d/x}", "outputs: {o: /d/./x}", "'/d/x'"),
        ("working_dir: /d", "outputs: {o: x}", "outputs: {o: y/../x}", "'/d/x'"),
        ("working_dir: /d", "working_dir: s, outputs: {o: x}", "outputs: {o: s/x}", "'/d/s/x'"),
        ("working_dir: /d", "outputs: {o: x}", "working_dir: /d/, outputs: {o: x}", "'/d/x'"),
        ("working_dir: /", "outputs: {o: x}", "outputs: {o: //x}", "'/x'"),
        (
            "working_dir: /d\nparams: {a: 1}",
            "outputs: {o: '${params.a}'}",
            "outputs: {o: '${params.a}'}",
            "'/d/${params.a}'",
        ),
    ],
)
def test_two_workers_that_write_one_file(top: str, first: str, second: str, clash: str) -> None:
    text = f"name: p\n{top}\nworkers:\n- {{name: a, command: x, {first}}}\n- {{name: b, command: x, {second}}}\n"
    found = problems_of(text)
    assert [problem["worker"] for problem in found] == ["b"]
    assert f"outputs.o writes {clash}, as does output 'o' of worker 'a'" in found[0]["message"]


def test_the_same_path_in_private_folders_is_no_clash() -> None:
    load("name: p\nworkers:\n- {name: a, command: x, outputs: {o: x}}\n- {name: b, command: x, outputs: {o: x}}\n")


def test_places_of_what_comes_by_an_alias_are_those_of_the_alias() -> None:
    text = "name: p\nworkers:\n- &w {name: a, command: x, timeout: -1}\n- {<<: *w, name: b}\n- *w\n"
    assert [(problem["line"], problem["column"]) for problem in problems_of(text)] == [(3, 37), (4, 3), (5, 3), (5, 3)]


def test_very_many_problems_are_cut() -> None:
    workers = [{"name": f"w{n}", "command": "x", "needs": [f"x{n}"]} for n in range(3 * MAX_PROBLEMS)]
    with pytest.raises(InvalidDocument) as caught:
        load(json.dumps({"name": "p", "workers": workers}))
    assert len(caught.value.detail) == MAX_PROBLEMS
    assert caught.value.message.endswith(f"only {MAX_PROBLEMS:,} problems are listed")


def test_values_that_were_read_already_have_no_lines() -> None:
    with pytest.raises(InvalidDocument) as caught:
        load_value({"name": "p", "workers": [{"name": "a", "command": "x", "args": [None]}]}, file="request")
    assert caught.value.message == "request: worker 'a': args[0] is null. Write a text, or '' for an empty one."
    assert caught.value.detail[0]["line"] is None


def test_keys_are_quoted_so_that_a_message_stays_on_its_line() -> None:
    found = problems_of(
        '{"name": "p", "workers": [{"name": "a", "command": "x", "x\\ny": 1, "env_vars": {"a\\nb": 1}}]}'
    )
    assert len(found) == 2


@pytest.mark.parametrize(
    "value",
    [
        None,
        3,
        {1: 2},
        {"name": "p", "workers": [{1: 2}]},
        {"name": b"p", "workers": ({},)},
        {"name": "p", "workers": [{"name": object()}]},
    ],
)
def test_python_values_that_are_no_json(value: object) -> None:
    with pytest.raises(InvalidDocument) as caught:
        load_value(value)
    assert caught.value.detail


def test_too_many_workers() -> None:
    text = json.dumps({"name": "p", "workers": [{"name": "w", "command": "x"}] * (MAX_WORKERS + 1)})
    assert [problem["message"] for problem in problems_of(text)] == [
        "workers has 200,001 entries; at most 200,000 are allowed"
    ]


@pytest.mark.parametrize(
    ("part", "worker_too"),
    [
        ({"params": MANY}, False),
        ({"env_vars": MANY}, False),
        (MANY, False),
        ({"workers": [{"name": "a", "args": list(MANY)}]}, True),
        ({"workers": [{"name": "a", **MANY}]}, True),
        ({"workers": [{"name": "a", "place": {"labels": MANY}}]}, True),
    ],
    ids=["params", "env_vars", "unknown", "args", "unknown in worker", "labels"],
)
def test_more_entries_than_could_be_complained_about(part: dict[str, Any], worker_too: bool) -> None:
    """What is wrong with each of them would fill the memory."""
    found = problems_of(json.dumps({"name": "p", "workers": [], **part}))
    assert len(found) == 1
    assert "100,00" in found[0]["message"]
    assert found[0]["worker"] == ("a" if worker_too else None)


def test_long_texts_are_refused_in_linear_time() -> None:
    """Each of these hung once, or would: digits without a unit, and much white space behind a wrong document."""
    assert (
        len(problems_of(worker("command: x", f"timeout: {'9' * 200_000}x", f"resources: {{memory: {'9' * 200_000}x}}")))
        == 2
    )
    assert len(problems_of('{"name": "p", "workers": []}' + " " * 500_000)) == 1


def test_half_a_character_in_a_key_hides_nothing_else() -> None:
    with pytest.raises(InvalidDocument) as caught:
        load('{"name": "", "\\ud800": 1, "mode": "x", "workers": [{"d": 1}]}')
    messages = " ".join(problem["message"] for problem in caught.value.detail)
    for part in ("mode", "name", "Unicode"):
        assert part in messages
