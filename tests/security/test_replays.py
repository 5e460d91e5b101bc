"""Old commands again, names that are paths, and texts that a shell would take for orders: at a runtime with real processes.

Each is shown in vain, and the same done rightly works.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio

from tests.runtime.node import KEYS, Node
from wattle.core.model import Assignment, FactKind, Input, TaskStatus
from wattle.document.compile import compile_document
from wattle.document.load import load_value
from wattle.errors import InvalidDocument
from wattle.protocol.messages import AssignBatch, CancelBatch, TaskRef, encode


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Node]:
    """Whoever else is on its bus is an intruder, who has recorded what was sent."""
    made = Node(tmp_path)
    async with made.running():
        yield made


def task(worker: str = "a", *, epoch: int = 1, run: str = "r", **more: Any) -> Assignment:
    return Assignment(run, worker, 1, epoch, "p", **{"argv": ("true",), **more})


def assign(*tasks: Assignment, owner: str = "c1") -> bytes:
    return encode(AssignBatch(owner, tasks))


def cancel(worker: str, epoch: int, owner: str = "c1") -> bytes:
    return encode(CancelBatch(owner, (TaskRef("r", worker, 1, epoch),)))


async def test_an_old_command_after_another_owner_took_over(node: Node) -> None:
    gate, proof = node.folder / "gate", node.folder / "proof"
    os.mkfifo(gate)
    old_assign = assign(task("late", script=f"touch {proof}"))
    await node.codes("assign", assign(task("a", script=f"read line < {gate}")))
    assert await node.codes("assign", assign(task("b", epoch=2), owner="c2")) == ["OK"]  # the epoch moves
    assert await node.codes("assign", old_assign) == ["FENCED"]
    assert await node.codes("cancel", cancel("a", 1)) == ["FENCED"]
    await trio.to_thread.run_sync(gate.write_text, "go\n")
    assert (await node.end("a")).status is TaskStatus.SUCCEEDED
    assert not proof.exists()
    assert await node.codes("assign", assign(task("late", epoch=2, script=f"touch {proof}"), owner="c2")) == ["OK"]
    assert (await node.end("late")).status is TaskStatus.SUCCEEDED
    assert proof.exists()


async def test_an_old_command_after_its_task_has_ended(node: Node) -> None:
    count = node.folder / "count"
    once = assign(task(script=f"echo ran >> {count}"))
    assert await node.codes("assign", once) == ["OK"]
    end = await node.end("a")
    assert await node.codes("assign", once) == ["OVER"]
    assert await node.codes("cancel", cancel("a", 1)) == ["OVER"]
    assert await node.codes("assign", assign(task("b"))) == [
        "OK"
    ]  # what is new is carried out, and so would have been the other
    assert (await node.end("b")).status is TaskStatus.SUCCEEDED
    assert count.read_text() == "ran\n"
    assert [fact for fact in node.facts if fact.kind is FactKind.FINISHED and fact.worker == "a"] == [end]


@pytest.mark.parametrize(
    "wrong",
    [
        task(run="../../etc"),
        task("../a"),
        task(inputs={"k": Input("v", "o", "p", "../../etc/passwd", 1)}),
        task(inputs={"k": Input("../v", "o", "p", "0" * 64, 1)}),
    ],
)
async def test_tasks_whose_names_are_paths(node: Node, wrong: Assignment) -> None:
    reply = await node.command("assign", assign(wrong))
    assert not reply.ok
    assert b"INVALID_REQUEST" in reply.payload
    assert await node.codes("assign", assign(task())) == ["OK"]


async def test_inputs_that_lead_out_of_their_folder(node: Node) -> None:
    source = Input("v", "o", "../../../stolen", "0" * 64, 1)
    await node.codes("assign", assign(task(inputs={"k": source})))
    end = await node.end("a")
    assert (end.status, "leads out of its folder" in (end.error or "")) == (TaskStatus.FAILED, True)


@pytest.mark.parametrize("path", ["r/a/1/../../../../runtime.db", "../../runtime/db/1/stdout", "r/a/1/passwd", "r/a/1"])
async def test_logs_that_are_other_files(node: Node, path: str) -> None:
    await node.codes("assign", assign(task(argv=("echo", "printed"))))
    await node.end("a")
    replies = await node.other.get(f"{KEYS.root}/log/{path}", timeout=20)
    assert not any(reply.ok for reply in replies)
    (reply,) = await node.other.get(f"{KEYS.root}/log/r/a/1/stdout", timeout=20)
    assert (reply.ok, reply.payload) == (True, b"printed\n")


@pytest.mark.parametrize("name", ["..", "../../runtime.db", "0" * 63, "0" * 63 + "/"])
async def test_content_that_is_another_file(node: Node, name: str) -> None:
    await node.codes("assign", assign(task(script="printf it > out", outputs={"o": "out"})))
    digest = (await node.end("a")).outputs["o"].digest
    for key in (f"{KEYS.root}/blob/{name.rstrip('/')}", f"{KEYS.root}/blob/{name.rstrip('/')}/node"):
        replies = await node.other.get(key, timeout=20)
        assert not any(reply.ok for reply in replies)
    (reply,) = await node.other.get(f"{KEYS.root}/blob/{digest}/node", timeout=20)
    assert (reply.ok, reply.payload) == (True, b"it")


HOSTILE = "; touch pwned; $(touch pwned) `touch pwned` ' \" | > pwned & \n touch pwned #"


async def test_texts_that_a_shell_would_obey(node: Node) -> None:
    """As a command's argument, a parameter of a script, an environment variable and a file's name they are what they are: texts."""
    name = HOSTILE.replace("/", "")
    document = {
        "name": "p",
        "params": {"who": None},
        "workers": [
            {"name": "a", "command": ["printf", "%s", "${params.who}"]},
            {
                "name": "b",
                "script": 'printf %s "${params.who}$1$V"',
                "args": ["${params.who}"],
                "env_vars": {"V": HOSTILE},
            },
            {"name": "c", "script": 'printf it > "${outputs.o}"', "outputs": {"o": "${params.who}"}},
            {"name": "d", "command": f"printf %s '{HOSTILE.replace(chr(39), '')}'"},
        ],
    }
    specs = compile_document(load_value(document), {"who": name}).workers
    printed = {"a": name, "b": name + name + HOSTILE, "c": "", "d": HOSTILE.replace("'", "")}
    for worker, spec in specs.items():
        given = {key: getattr(spec, key) for key in ("argv", "script", "env", "outputs", "params")}
        assert await node.codes("assign", assign(task(worker, **given))) == ["OK"]
        assert (await node.end(worker)).status is TaskStatus.SUCCEEDED
        assert (node.folder / "logs" / "r" / f"{worker}.1.stdout").read_text() == printed[worker]
    assert (node.folder / "work" / "r" / "c.1" / name).read_text() == "it"
    assert list(node.folder.rglob("pwned")) == []


@pytest.mark.parametrize("path", ["../out", "a/../../out", "${params.where}"])
def test_outputs_that_lead_out_of_a_private_folder(path: str) -> None:
    document = {
        "name": "p",
        "params": {"where": "../out"},
        "workers": [{"name": "a", "command": "x", "outputs": {"o": path}}],
    }
    with pytest.raises(InvalidDocument, match="leads out"):
        compile_document(load_value(document))
