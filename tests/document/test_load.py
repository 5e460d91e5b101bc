"""Loading good documents, and texts that are anything at all."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from wattle.core.graph import levels
from wattle.document.compile import compile_document, to_json
from wattle.document.load import load, load_value
from wattle.document.model import Document, as_bytes, as_seconds, json_schema
from wattle.errors import InvalidDocument

EXAMPLE = """
{"name": "p", "working_dir": "/tmp/p", "workers": [
 {"name": "fetch", "command": "python fetch.py", "args": ["--source", "db"], "env_vars": {"A": "1"}, "outputs": {"raw": "raw.json"}},
 {"name": "use", "workflow_name": "p", "command": "python use.py", "inputs": {"data": "fetch/raw"}, "outputs": {"out": "/tmp/p/out.json"}}]}
"""

FULL = """
name: full
description: every key
working_dir: /data/${params.where}
params: {where: here, must: null, n: 3, flag: true, ratio: 0.5}
env_vars: {A: 1, B: false}
mode: levels
on_failure: continue
priority: 2
workers:
- name: first
  workflow_name: full
  description: makes a file
  command: [python, -c, "print('${params.must}')", 3]
  args: [1, true, 0.5, yes, "${run.id}"]
  env_vars: {B: "two words"}
  working_dir: sub
  outputs: {file: "out-${params.n}.txt"}
  retries: 3
  timeout: 1h30m
  kill_after: 500ms
  resources: {cpus: 0.5, memory: 1.5GiB, gpus: 1, licence: 2}
  limits: {memory: 1GiB, cpu: 1.5, processes: 64, open_files: 100, file_size: 10MB, disk: 1GB, time: 1m}
  sandbox: strict
  run_as: nobody
  place: {labels: {disk: ssd, rack: 4}, node: n1}
  priority: -1
  on_failure: stop
  on_disconnect: stop
- name: second
  script: |
    cat "${inputs.in}" > "${outputs.out}"
  args: [x]
  inputs: {in: first/file}
  outputs: {out: /elsewhere/out}
  needs: [first]
  secrets: [TOKEN]
  retries: {max: 2, delay: 5s, backoff: 3, max_delay: 10m, jitter: 0}
"""

scalars = st.none() | st.booleans() | st.integers(-5, 5) | st.floats() | st.sampled_from(
    ["", "a", "b", "a/o", "/x", "../x", "x y", "it's", "${params.p}", "${inputs.d}", "${params.", "\0", "\ud800", "10m", "2GiB", "é"]
)  # fmt: skip
keys = st.sampled_from(
    [
        *Document.model_fields,
        "inputs",
        "outputs",
        "needs",
        "command",
        "script",
        "retries",
        "max",
        "place",
        "oops",
        "\n",
        "\ud800",
    ]
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3), max_leaves=6
)
workers = st.fixed_dictionaries(
    {"name": st.sampled_from(["a", "b", "c"])},
    optional={
        "command": scalars,
        "script": scalars,
        "args": st.lists(scalars, max_size=2),
        "env_vars": st.dictionaries(st.sampled_from(["A", "1", "WATTLE_RUN"]), scalars, max_size=2),
        "inputs": st.dictionaries(st.sampled_from(["d", "e"]), scalars, max_size=2),
        "outputs": st.dictionaries(st.sampled_from(["o", "p"]), scalars, max_size=2),
        "needs": st.lists(st.sampled_from(["a", "b", "c", "d"]), max_size=2),
        "retries": values,
        "timeout": scalars,
        "resources": values,
    },
)
documents = st.fixed_dictionaries(
    {"name": st.just("p"), "workers": st.lists(workers | values, max_size=4)},
    optional={
        "params": st.dictionaries(st.sampled_from(["p", "q"]), scalars),
        "working_dir": scalars,
        "mode": scalars,
        "oops": values,
    },
)


def try_to_load(text: str | bytes) -> None:
    """Loading ends with a document that survives a round trip, or with problems that can be told."""
    try:
        document = load(text)
    except InvalidDocument as error:
        report = error
    else:
        assert load_value(to_json(document)) == document
        return
    assert report.detail
    assert report.message.encode()
    assert json.dumps(report.as_dict())


def test_the_json_form_of_the_design_works_unchanged() -> None:
    document = load(EXAMPLE)
    assert to_json(document) == json.loads(EXAMPLE)
    assert [worker.name for worker in document.workers] == ["fetch", "use"]


def test_every_key() -> None:
    document = load(FULL)
    first, second = document.workers
    assert document.params == {"where": "here", "must": None, "n": "3", "flag": "true", "ratio": "0.5"}
    assert document.env_vars == {"A": "1", "B": "false"}
    assert first.command == ["python", "-c", "print('${params.must}')", "3"]
    assert first.args == ["1", "true", "0.5", "yes", "${run.id}"]
    assert first.retries.max == 3
    assert first.timeout == 5400
    assert first.kill_after == 0.5
    assert first.resources.model_dump() == {"cpus": 0.5, "memory": 1.5 * 2**30, "gpus": 1, "licence": 2}
    assert first.limits.model_dump() == {
        "memory": 2**30, "cpu": 1.5, "processes": 64, "open_files": 100, "file_size": 1e7, "disk": 1e9, "time": 60
    }  # fmt: skip
    assert (first.sandbox, first.run_as) == ("strict", "nobody")
    assert first.place.labels == {"disk": "ssd", "rack": "4"}
    assert second.retries.model_dump() == {"max": 2, "delay": 5, "backoff": 3, "max_delay": 600, "jitter": 0}
    assert (second.timeout, second.priority, second.on_failure, second.kill_after) == (None, None, None, 10)
    assert (second.sandbox, second.run_as) == ("none", None)
    assert second.secrets == {"TOKEN": "TOKEN"}


def test_full_uses_every_key_there_is() -> None:
    """So that a new key has to be added to the test above."""

    def used(part: BaseModel) -> set[str]:
        inner = [getattr(part, name) for name in part.model_fields_set]
        flat = [each for value in inner for each in (value if isinstance(value, list) else [value])]
        return part.model_fields_set.union(*(used(each) for each in flat if isinstance(each, BaseModel)))

    schema = json_schema()
    declared = set(schema["properties"]).union(*(definition["properties"] for definition in schema["$defs"].values()))
    assert declared - used(load(FULL)) == set()


@pytest.mark.parametrize("text", [EXAMPLE, FULL])
def test_what_is_stored_loads_as_the_same_document(text: str) -> None:
    document = load(text)
    stored = json.dumps(to_json(document))
    assert load(stored) == document
    assert load(stored.encode(), format="json") == document
    assert Document.model_validate(to_json(document)) == document


def test_the_collector_is_as_it_was() -> None:
    assert gc.isenabled()
    load(EXAMPLE)
    with pytest.raises(InvalidDocument):
        load("[")
    assert gc.isenabled()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("90s", 90), ("10m", 600), ("2h", 7200), ("1h30m", 5400), ("250ms", 0.25), ("1.5 h", 5400), ("1d", 86400)],
)
def test_durations(text: str, seconds: float) -> None:
    assert as_seconds(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"),
    [("0B", 0), ("512MB", 512e6), ("2GiB", 2**31), ("1.5 KiB", 1536), ("10kB", 1e4), ("1TB", 1e12), ("1PiB", 2**50)],
)
def test_sizes(text: str, size: float) -> None:
    assert as_bytes(text) == size


def test_the_schema_describes_every_key() -> None:
    schema = json_schema()
    json.dumps(schema, allow_nan=False)
    for part in (schema, *schema["$defs"].values()):
        for name, about in part["properties"].items():
            assert about.get("description", "").endswith("."), name


@settings(deadline=None)
@given(st.lists(st.sets(st.integers(0, 30), max_size=3), min_size=1, max_size=12))
def test_any_acyclic_graph_loads_and_compiles(edges: list[set[int]]) -> None:
    specs: list[dict[str, Any]] = []
    for number, before in enumerate(edges):
        needs = [f"w{need % number}" for need in before] if number else []
        inputs = {f"i{position}": f"{need}/o" for position, need in enumerate(needs[1:])}
        specs.append(
            {"name": f"w{number}", "command": "x", "outputs": {"o": "o"}, "inputs": inputs, "needs": needs[:1]}
        )
    workflow = compile_document(load(json.dumps({"name": "p", "workers": specs[::-1]})))
    depth = {
        name: at for at, level in enumerate(levels({n: s.needs for n, s in workflow.workers.items()})) for name in level
    }
    assert all(depth[need] < depth[name] for name, spec in workflow.workers.items() for need in spec.needs)


@settings(deadline=None)
@given(documents)
def test_wrong_documents_are_invalid_documents(value: dict[str, Any]) -> None:
    try_to_load(json.dumps(value))


@settings(deadline=None)
@given(st.binary(max_size=60) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "surrogatepass")))
def test_any_bytes_are_a_document_or_invalid(data: bytes) -> None:
    try_to_load(data)


@settings(deadline=None)
@given(st.data())
def test_damaged_documents_are_documents_or_invalid(data: st.DataObject) -> None:
    text = data.draw(st.sampled_from([EXAMPLE, FULL]))
    start = data.draw(st.integers(0, len(text)))
    end = data.draw(st.integers(start, min(len(text), start + 10)))
    try_to_load(
        text[:start] + data.draw(st.text(st.sampled_from("{}[]:,\"'&*!|>-#\n\t ${}aé"), max_size=4)) + text[end:]
    )
