"""WfCommons instances as documents: the same graph, and stand-ins that really run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.document.local import RunHere
from wattle.document.compile import compile_document
from wattle.document.load import load_value
from wattle.document.wfformat import convert
from wattle.errors import InvalidDocument, InvalidRequest

INSTANCES = Path(__file__).parents[3] / "shared" / "wfinstances"
COUNTS = {
    "helloworld-forkjoin-10-chameleon": (10, 16),
    "1000genome-chameleon-2ch-100k-001": (52, 76),
    "montage-chameleon-2mass-005d-001": (58, 114),
    "viralrecon-dirt02-001": (203, 343),
}


def task(id: str, **more: Any) -> dict[str, Any]:
    return {"name": id, "id": id, "parents": [], "children": [], "inputFiles": [], "outputFiles": [], **more}


def instance(tasks: list[dict[str, Any]], sizes: dict[str, int], **more: Any) -> bytes:
    specification = {"tasks": tasks, "files": [{"id": name, "sizeInBytes": size} for name, size in sizes.items()]}
    execution = {"tasks": [{"id": each["id"], "runtimeInSeconds": 2.5} for each in tasks]}
    workflow = {"specification": specification, "execution": execution}
    return json.dumps({"name": "small one", "schemaVersion": "1.5", "workflow": workflow, **more}).encode()


SMALL = instance(
    [
        task("make", outputFiles=["/x/a.txt", "/y/a.txt", "big"], children=["read"]),
        task("read", inputFiles=["/x/a.txt", "/y/a.txt", "given", "big"], outputFiles=["out"]),
        task("after it", parents=["read", "make"]),
    ],
    {"/x/a.txt": 0, "/y/a.txt": 10, "big": 100_001, "given": 5, "out": 3},
)


def files_of(tmp_path: Path) -> dict[str, bytes]:
    """What the workers of a local run wrote, by worker and name."""
    work = tmp_path / "data" / "work" / "r-1"
    return {f"{path.parent.name}/{path.name}": path.read_bytes() for path in work.glob("*/*") if path.is_file()}


def test_a_small_instance_keeps_its_graph() -> None:
    document = convert(SMALL, time_scale=0.1, data_scale=2)
    workers = {worker["name"]: worker for worker in document["workers"]}
    assert document["name"] == "small-one"
    assert workers.keys() == {"make", "read", "after-it"}
    assert workers["make"]["outputs"] == {"a.txt": "a.txt", "a.txt-2": "a.txt-2", "big": "big"}
    assert workers["read"]["inputs"] == {"a.txt": "make/a.txt", "a.txt-2": "make/a.txt-2", "big": "make/big"}
    assert workers["after-it"]["needs"] == ["read", "make"]
    assert "sleep 0.25\n" in workers["make"]["script"]
    assert "left out: 1" in document["description"]


def test_the_stand_ins_run_and_make_files_of_the_scaled_size(run_here: RunHere, tmp_path: Path) -> None:
    run_here(compile_document(load_value(convert(SMALL, time_scale=0, data_scale=0.5))))
    files = files_of(tmp_path)
    sizes = {name: len(content) for name, content in files.items()}
    assert sizes == {"make.1/a.txt": 1, "make.1/a.txt-2": 5, "make.1/big": 50_001, "read.1/out": 2}
    assert len(set(files.values())) == len(files)


@pytest.mark.parametrize("size", [1, 43, 44, 45, 32_768, 45_056, 45_057, 200_000])
def test_files_have_exactly_their_size_and_are_the_same_each_time(size: int, run_here: RunHere, tmp_path: Path) -> None:
    document = convert(instance([task("t", outputFiles=["f", "g"])], {"f": size, "g": size}), time_scale=0)
    run_here(compile_document(load_value(document)))
    first = files_of(tmp_path)
    run_here(compile_document(load_value(document)))
    assert {name: len(content) for name, content in first.items()} == {"t.1/f": size, "t.1/g": size}
    assert files_of(tmp_path) == first
    assert size < 44 or first["t.1/f"] != first["t.1/g"]


@pytest.mark.parametrize("damage", ["make.1/big", "make.1/a.txt-2"])
def test_a_stand_in_fails_when_an_input_has_another_size(damage: str, run_here: RunHere, tmp_path: Path) -> None:
    document = convert(SMALL, time_scale=0)
    name = damage.split("/")[1]
    making = document["workers"][0]
    making["script"] += f'printf x >> "${{outputs.{name}}}"\n'
    with pytest.raises(AssertionError, match="bytes, not"):
        run_here(compile_document(load_value(document)))


def test_a_stand_in_fails_when_an_input_is_missing(run_here: RunHere) -> None:
    document = convert(SMALL, time_scale=0)
    reading = document["workers"][1]
    reading["script"] = 'rm "${inputs.big}"\n' + reading["script"]
    with pytest.raises(AssertionError, match="an input is missing"):
        run_here(compile_document(load_value(document)))


@pytest.mark.parametrize("name", COUNTS)
def test_published_instances_convert_to_the_same_graph(name: str) -> None:
    path = INSTANCES / f"{name}.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in ../shared/wfinstances")
    workflow = compile_document(
        load_value(convert(path.read_bytes(), time_scale=0.01, data_scale=0.001, file=path.name))
    )
    tasks, edges = COUNTS[name]
    assert len(workflow.workers) == tasks
    assert sum(len(spec.needs) for spec in workflow.workers.values()) == edges


def test_a_published_instance_runs(run_here: RunHere, tmp_path: Path) -> None:
    path = INSTANCES / "helloworld-forkjoin-10-chameleon.json"
    if not path.is_file():
        pytest.skip(f"{path.name} is not in ../shared/wfinstances")
    document = convert(path.read_bytes(), time_scale=0, data_scale=0.001, file=path.name)
    run_here(compile_document(load_value(document)))
    assert {len(content) for content in files_of(tmp_path).values()} == {9091}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "is no valid JSON"),
        (b"\xff", "is no valid JSON"),
        (b"[" * 100_000, "is no valid JSON"),
        (b"[]", "has no 'schemaVersion'"),
        (instance([task("a")], {}, schemaVersion="1.4"), "has schemaVersion '1.4'; only WfFormat 1.5"),
        (instance([task("a")], {}, workflow={"specification": {}}), "has no 'execution'"),
        (instance([task("a"), task("a")], {}), "two tasks with the id 'a'"),
        (instance([task("a", inputFiles=["x"])], {}), "no size of the file 'x' of task 'a'"),
        (instance([task("a", inputFiles="x")], {}), "'inputFiles' of task 'a' that is no list"),
        (instance([task("a", outputFiles=["x"])], {"x": -1}), "no 'sizeInBytes' in a file"),
        (
            instance([task("a", outputFiles=["x"]), task("b", outputFiles=["x"])], {"x": 1}),
            "write the file 'x': 'a' and 'b'",
        ),
        (instance([task("a", parents=["b"])], {}), "names 'b' as a parent or child of task 'a'"),
        (instance([task("a", children=["a"])], {}), "cannot wait for itself"),
        (instance([task("a", children=["b"]), task("b", children=["a"])], {}), "in a cycle: a -> b -> a"),
        (instance([], {}), "workers is empty"),
        (
            json.dumps(
                {
                    "name": "x",
                    "schemaVersion": "1.5",
                    "workflow": {"specification": {"tasks": [task("a")]}, "execution": {"tasks": []}},
                }
            ).encode(),
            "no run time of task 'a'",
        ),
    ],
)
def test_broken_instances_are_named(data: bytes, message: str) -> None:
    with pytest.raises(InvalidDocument) as caught:
        convert(data, file="instance.json")
    assert caught.value.message.startswith("instance.json:")
    assert message in caught.value.message
    assert caught.value.detail


@pytest.mark.parametrize("scale", [-1.0, float("nan"), float("inf")])
def test_scales_are_finite_and_not_negative(scale: float) -> None:
    with pytest.raises(InvalidRequest, match="data_scale"):
        convert(SMALL, data_scale=scale)
    with pytest.raises(InvalidRequest, match="time_scale"):
        convert(SMALL, time_scale=scale)
