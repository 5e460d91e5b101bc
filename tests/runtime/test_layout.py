"""Where a task's things are, and what its process is started with."""

from __future__ import annotations

from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattle.core.model import Assignment, Input, TaskId
from wattle.errors import InvalidRequest
from wattle.runtime.layout import Folders, declared_outputs, layout

DATA = Path("/data")
FOLDERS = Folders(DATA)
PRIVATE = Path("/data/work/r1/use.2")


def assignment(**fields: Any) -> Assignment:
    return Assignment("r1", "use", 2, 1, "flow", **fields)


def source(path: str) -> Input:
    return Input("fetch", "raw", path, "d" * 64, 1)


def test_the_data_folder_is_made_absolute_and_holds_logs_work_and_blobs() -> None:
    folders = Folders(Path("data"))
    assert folders.data == Path.cwd() / "data"
    task = TaskId("r1", "a.b", 3)
    assert FOLDERS.log(task, "stderr") == DATA / "logs/r1/a.b.3.stderr"
    assert FOLDERS.work(task) == DATA / "work/r1/a.b.3"
    assert FOLDERS.blob("ab" + "c" * 62) == DATA / "blobs/ab" / ("ab" + "c" * 62)


def test_without_working_dir_a_task_has_a_private_folder() -> None:
    found = layout(assignment(argv=("a",), inputs={"data": source("sub/raw.json")}, outputs={"out": "o/x"}), FOLDERS)
    assert found.cwd == str(PRIVATE)
    assert found.inputs == {"data": PRIVATE / "inputs/fetch/sub/raw.json"}
    assert found.outputs == {"out": PRIVATE / "o/x"}
    assert (found.stdout, found.stderr) == (f"{DATA}/logs/r1/use.2.stdout", f"{DATA}/logs/r1/use.2.stderr")


def test_with_working_dir_relative_paths_are_below_it_and_absolute_ones_stay() -> None:
    at = assignment(
        working_dir="/tmp/${params.p}",
        params={"p": "x"},
        inputs={"near": source("raw.json"), "far": source("/srv/raw")},
        outputs={"near": "o.json", "far": "/srv/o"},
    )
    found = layout(at, FOLDERS)
    assert found.cwd == "/tmp/x"
    assert found.inputs == {"near": Path("/tmp/x/inputs/fetch/raw.json"), "far": Path("/srv/raw")}
    assert found.outputs == {"near": Path("/tmp/x/o.json"), "far": Path("/srv/o")}


def test_references_are_filled_in_everywhere() -> None:
    at = assignment(
        argv=("tool", "--in=${inputs.data}", "${outputs.out}", "${params.n}", "${run.id}", "${HOME}", "$${x}"),
        env={"N": "n is ${params.n}", "OUT": "${outputs.out}"},
        params={"n": "${run.id}"},
        inputs={"data": source("raw")},
        outputs={"out": "${run.id}.txt"},
    )
    found = layout(at, FOLDERS)
    data, out = str(PRIVATE / "inputs/fetch/raw"), str(PRIVATE / "r1.txt")
    assert found.argv == ("tool", f"--in={data}", out, "${run.id}", "r1", "${HOME}", "${x}")
    assert found.env["N"] == "n is ${run.id}"
    assert found.env["OUT"] == out
    assert declared_outputs(at) == {"out": "r1.txt"}


def test_a_script_gets_its_values_by_environment_and_arguments_never_as_text() -> None:
    at = assignment(script='echo "${params.who}" $1', argv=("${params.who}",), params={"who": "$(rm -rf /)"})
    found = layout(at, FOLDERS)
    assert found.argv == ("sh", "-eu", "-c", 'echo "${WATTLE_PARAM_WHO}" $1', "wattle", "$(rm -rf /)")
    assert found.env["WATTLE_PARAM_WHO"] == "$(rm -rf /)"


def test_the_environment_says_who_and_where_and_the_workers_own_wins() -> None:
    at = assignment(
        inputs={"my-data": source("/raw")}, outputs={"out": "/o"}, params={"a.b": "1"}, env={"WATTLE_WORKFLOW": "mine"}
    )
    assert layout(at, FOLDERS).env == {
        "WATTLE_RUN": "r1",
        "WATTLE_WORKER": "use",
        "WATTLE_ATTEMPT": "2",
        "WATTLE_WORKFLOW": "mine",
        "WATTLE_TASK": "r1/use/2",
        "WATTLE_INPUT_MY_DATA": "/raw",
        "WATTLE_OUTPUT_OUT": "/o",
        "WATTLE_PARAM_A_B": "1",
    }


@pytest.mark.parametrize("path", ["../x", "a/../../x", "..", ".", "", "a/.."])
def test_an_input_cannot_be_put_outside_its_folder(path: str) -> None:
    with pytest.raises(InvalidRequest, match=r"input 'k' .* leads out of its folder"):
        layout(assignment(inputs={"k": source(path)}), FOLDERS)


@given(st.text(alphabet="ab./", max_size=12).filter(lambda path: not path.startswith("/")))
def test_a_relative_input_is_below_inputs_or_refused(path: str) -> None:
    try:
        found = layout(assignment(inputs={"k": source(path)}), FOLDERS).inputs["k"]
    except InvalidRequest:
        return
    assert ".." not in found.parts
    assert PurePosixPath(found).is_relative_to(PRIVATE / "inputs/fetch")
    assert found != PRIVATE / "inputs/fetch"


def test_a_reference_without_value_is_refused() -> None:
    with pytest.raises(InvalidRequest, match=r"params\.gone"):
        layout(assignment(argv=("${params.gone}",)), FOLDERS)
