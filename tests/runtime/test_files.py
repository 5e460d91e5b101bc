"""Outputs hashed, inputs put in place, content passed between nodes on an in-memory network."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from wattle.bus.base import Bus, Query
from wattle.bus.memory import MemoryNetwork
from wattle.bus.queries import BUSY
from wattle.core.model import Assignment, Input
from wattle.peer.asking import parse_parameters
from wattle.peer.presence import Presence
from wattle.protocol.keys import Keys
from wattle.runtime.files import Blob, FileProblem, Files, InputsMissing, OutputMissing
from wattle.runtime.layout import Folders, Layout, layout
from wattle.runtime.serving import CHUNK

KEYS = Keys("test")


class Index(dict[str, list[Blob]]):
    """A store's index in memory."""

    def find(self, digest: str) -> list[Blob]:
        return self.get(digest, [])

    def add(self, *blobs: Blob) -> None:
        for blob in blobs:
            self.setdefault(blob.digest, []).append(blob)


class Node:
    """A runtime, as far as files go."""

    def __init__(self, network: MemoryNetwork, folder: Path, name: str) -> None:
        self.name = name
        self.folder = folder / name
        self.folder.mkdir()
        self.folders = Folders(self.folder)
        self.index = Index()
        self.bus = network.bus(name)
        presence = Presence(self.bus, KEYS)
        self.files = Files(
            self.bus, KEYS, name, self.folders, self.index, pause=0,
            while_in_sight=lambda node: presence.while_in_sight(presence.newest("runtime", node)),
        )  # fmt: skip
        self.declaration = self.files.serve()

    def make(self, name: str, content: bytes) -> Blob:
        """A file of this node that its index knows."""
        path = self.folder / name
        path.write_bytes(content)
        found = path.stat()
        blob = Blob(digest_of(content), path, found.st_size, found.st_mtime_ns)
        self.index.add(blob)
        return blob

    def task(self, path: str = "raw", worker: str = "use", **contents: bytes | Blob) -> tuple[Assignment, Layout]:
        """A task with one input per keyword, all of the same path below different producers."""
        inputs = {}
        for key, content in contents.items():
            digest, size = (
                (content.digest, content.size) if isinstance(content, Blob) else (digest_of(content), len(content))
            )
            inputs[key] = Input(key, "out", path, digest, size)
        assignment = Assignment("r1", worker, 1, 1, "flow", argv=("x",), inputs=inputs)
        return assignment, layout(assignment, self.folders)

    async def place(self, assignment: Assignment, at: Layout) -> list[Blob]:
        with trio.fail_after(20):
            blobs = await self.files.place(assignment, at)
        self.index.add(*blobs)
        return blobs


class Holder:
    """A node of the test's own making that has some content and misbehaves as told."""

    def __init__(self, bus: Bus, name: str, content: bytes, *, digest: str = "", until: int = 1 << 30) -> None:
        self.name = name
        self.content = content
        self.until = until  # chunks; it is silent about those behind
        self.asked: list[int] = []
        self.gate = trio.Event()
        self.gate.set()
        self.asked_for_one = trio.Event()
        self._held_back: list[Query] = []
        self.busy = 0  # how many more questions it turns away
        digest = digest or digest_of(content)
        self._key = KEYS.blob_from(digest, name)
        bus.serve(KEYS.blob(digest), self._say_so, complete=False)
        bus.serve(self._key, self._give)

    def _say_so(self, query: Query) -> None:
        query.reply(json.dumps({"peer": self.name, "size": len(self.content)}).encode())
        query.finish()

    def _give(self, query: Query) -> None:
        parameters = parse_parameters(query.parameters)
        offset, limit = int(parameters["offset"]), int(parameters["limit"])
        self.asked.append(offset)
        self.asked_for_one.set()
        if not self.gate.is_set():
            self._held_back.append(query)
            return
        if self.busy:
            self.busy -= 1
            query.reply_error(BUSY)
        elif offset < self.until * CHUNK:
            query.reply(self.content[offset : offset + limit])
        query.finish()


def digest_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def content_of(chunks: float, seed: int = 1) -> bytes:
    size = int(chunks * CHUNK)
    return (hashlib.sha256(bytes([seed])).digest() * (size // 32 + 1))[:size]


@pytest.fixture
async def network() -> MemoryNetwork:
    return MemoryNetwork()


@pytest.fixture
async def node(network: MemoryNetwork, tmp_path: Path) -> Node:
    return Node(network, tmp_path, "here")


@pytest.fixture
async def other(network: MemoryNetwork, tmp_path: Path) -> Node:
    return Node(network, tmp_path, "there")


# --- outputs --------------------------------------------------------------------------------------------------------------


async def test_outputs_are_hashed_where_they_are(tmp_path: Path, node: Node) -> None:
    paths = {name: tmp_path / name for name in ("b", "a", "empty")}
    for name, content in (("a", b"one"), ("b", content_of(2.5)), ("empty", b"")):
        paths[name].write_bytes(content)
    blobs = await node.files.collect(paths)
    assert list(blobs) == ["b", "a", "empty"]
    for name, blob in blobs.items():
        found = paths[name].stat()
        assert blob == Blob(digest_of(paths[name].read_bytes()), paths[name], found.st_size, found.st_mtime_ns)


async def test_all_missing_outputs_are_named_with_the_paths_looked_at(tmp_path: Path, node: Node) -> None:
    (tmp_path / "there").write_text("x")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    paths = {name: tmp_path / name for name in ("gone", "there", "folder", "pipe", "lost")}
    with pytest.raises(OutputMissing) as caught:
        await node.files.collect(paths)
    assert list(caught.value.problems) == ["gone", "folder", "pipe", "lost"]
    message = caught.value.message
    assert f"output 'gone': the command left no file at {tmp_path}/gone" in message
    assert f"output 'folder': {tmp_path}/folder is a folder, not a file" in message
    assert "pipe is a pipe, not a file" in message


# --- inputs of this node -----------------------------------------------------------------------------------------------------


async def test_an_input_that_is_held_here_is_linked(node: Node) -> None:
    blob = node.make("made", b"content")
    assignment, at = node.task(a=blob, b=blob)
    assert await node.place(assignment, at) == []
    for path in at.inputs.values():
        assert path.read_bytes() == b"content"
        assert path.samefile(blob.path)
    assert await node.place(assignment, at) == [], "once more is fine"
    assert sorted(p.name for p in at.inputs["a"].parent.iterdir()) == ["raw"], "nothing temporary is left"


async def test_a_symbolic_link_as_output_is_followed(node: Node) -> None:
    blob = node.make("made", b"content")
    link = node.folder / "link"
    link.symlink_to(blob.path)
    collected = (await node.files.collect({"o": link}))["o"]
    node.index.clear()
    node.index.add(collected)
    assignment, at = node.task(a=collected)
    await node.place(assignment, at)
    assert not at.inputs["a"].is_symlink()
    assert at.inputs["a"].read_bytes() == b"content"


async def test_an_input_is_copied_where_links_cannot_be(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    blob = node.make("made", b"content")
    blob.path.chmod(0o755)
    monkeypatch.setattr(os, "link", refuse)
    assignment, at = node.task(a=blob)
    await node.place(assignment, at)
    assert at.inputs["a"].read_bytes() == b"content"
    assert not at.inputs["a"].samefile(blob.path)
    assert at.inputs["a"].stat().st_mode & 0o777 == 0o755


async def test_an_absolute_input_that_is_there_already_is_left_alone(node: Node) -> None:
    blob = node.make("made", b"content")
    before = blob.path.stat()
    assignment, at = node.task(path=str(blob.path), a=blob)
    assert await node.place(assignment, at) == []
    assert blob.path.stat() == before


async def test_the_right_content_at_an_absolute_path_is_recognized(node: Node, tmp_path: Path) -> None:
    shared = tmp_path / "on a shared file system"
    shared.write_bytes(b"content")
    inode = shared.stat().st_ino
    assignment, at = node.task(path=str(shared), a=b"content")
    (blob,) = await node.place(assignment, at)
    assert (blob.path, blob.digest) == (shared, digest_of(b"content"))
    assert shared.stat().st_ino == inode


async def test_other_content_at_an_absolute_path_is_replaced_as_a_whole(node: Node, tmp_path: Path) -> None:
    stale = tmp_path / "stale"
    stale.write_bytes(b"CONTENT")
    reader = stale.open("rb")
    blob = node.make("made", b"content")
    assignment, at = node.task(path=str(stale), a=blob)
    await node.place(assignment, at)
    assert stale.read_bytes() == b"content"
    assert reader.read() == b"CONTENT"
    reader.close()


async def test_a_folder_in_the_way_is_named(node: Node, tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    assignment, at = node.task(path=str(tmp_path / "sub"), a=b"content")
    with pytest.raises(FileProblem, match=r"/sub is a folder"):
        await node.place(assignment, at)


async def test_a_place_that_cannot_be_written_is_named(node: Node, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    blob = node.make("made", b"content")
    assignment, at = node.task(path=str(tmp_path / "file" / "x"), a=blob)
    with pytest.raises(FileProblem, match=r"input 'a' cannot be put at .*/file/x: .*/file: File exists"):
        await node.place(assignment, at)


# --- inputs from other nodes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunks", [0, 0.001, 1, 6.3])
async def test_an_input_is_fetched_from_who_has_it(node: Node, other: Node, chunks: float) -> None:
    content = content_of(chunks)
    blob = other.make("made", content)
    assignment, at = node.task(a=blob)
    (fetched,) = await node.place(assignment, at)
    assert at.inputs["a"].read_bytes() == content
    path = node.folders.blob(blob.digest)
    assert fetched == Blob(blob.digest, path, len(content), path.stat().st_mtime_ns)
    assert at.inputs["a"].samefile(path)
    assert [p.name for p in path.parent.iterdir()] == [blob.digest]
    other.declaration.undeclare()
    again, at_again = node.task(worker="again", a=blob)
    assert await node.place(again, at_again) == [], "now it is held here"


async def test_what_was_fetched_is_passed_on(network: MemoryNetwork, tmp_path: Path, node: Node, other: Node) -> None:
    blob = other.make("made", b"content")
    blob.path.chmod(0o755)
    await node.place(*node.task(a=blob))
    other.declaration.undeclare()
    third = Node(network, tmp_path, "third")
    assignment, at = third.task(a=blob)
    await third.place(assignment, at)
    assert at.inputs["a"].read_bytes() == b"content"
    assert os.access(at.inputs["a"], os.X_OK), "a program stays a program"


async def test_tasks_that_want_the_same_share_one_fetch(network: MemoryNetwork, node: Node) -> None:
    content = content_of(5)
    holder = Holder(network.bus(), "holder", content)
    async with trio.open_nursery() as nursery:
        for worker in ("a", "b", "c"):
            nursery.start_soon(node.place, *node.task(worker=worker, x=content, y=content))
    assert sorted(holder.asked) == [i * CHUNK for i in range(5)]


async def test_a_cancelled_fetch_is_taken_over_by_who_waits(network: MemoryNetwork, node: Node) -> None:
    content = content_of(5)
    holder = Holder(network.bus(), "holder", content)
    holder.gate = trio.Event()
    first = trio.CancelScope()

    async def place_until_cancelled() -> None:
        with first:
            await node.place(*node.task(worker="first", a=content))

    assignment, at = node.task(worker="second", a=content)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(place_until_cancelled)
        await holder.asked_for_one.wait()
        nursery.start_soon(node.place, assignment, at)
        await trio.testing.wait_all_tasks_blocked()
        holder.gate.set()
        first.cancel()
    assert first.cancelled_caught
    assert at.inputs["a"].read_bytes() == content


async def test_a_fetch_goes_on_with_another_holder_where_the_first_fell_silent(
    network: MemoryNetwork, node: Node
) -> None:
    content = content_of(8)
    holders = [Holder(network.bus(), name, content, until=until) for name, until in (("e", 3), ("a", 5), ("d", 8))]
    assignment, at = node.task(a=content)
    await node.place(assignment, at)
    assert at.inputs["a"].read_bytes() == content
    assert all(holder.asked for holder in holders), "names in the order in which this node asks"
    given = [offset // CHUNK for holder in holders for offset in holder.asked if offset < holder.until * CHUNK]
    assert sorted(given) == list(range(8)), "nothing that was given is asked for again"


async def test_a_question_that_was_lost_with_its_holder_is_over_with_it(network: MemoryNetwork, node: Node) -> None:
    """One that is sent in the moment of a peer's death may stay open: here the holder keeps it, and only its token goes."""
    content = content_of(1.5)
    bus = network.bus("there")
    holder, token = Holder(bus, "there", content), bus.declare_alive(KEYS.alive("runtime", "there", "1"))
    holder.gate = trio.Event()
    assignment, at = node.task(raw=content)

    async def die() -> None:
        await holder.asked_for_one.wait()
        token.undeclare()
        holder.gate.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(die)
        (blob,) = await node.place(assignment, at)
    assert blob.path.read_bytes() == content


async def test_a_fetch_goes_on_where_an_earlier_process_stopped(network: MemoryNetwork, node: Node) -> None:
    content = content_of(4)
    holder = Holder(network.bus(), "holder", content)
    path = node.folders.blob(digest_of(content))
    path.parent.mkdir(parents=True)
    path.with_name(f"{path.name}.part").write_bytes(content[: CHUNK + CHUNK // 2])
    assignment, at = node.task(a=content)
    await node.place(assignment, at)
    assert at.inputs["a"].read_bytes() == content
    assert min(holder.asked) == CHUNK + CHUNK // 2


@pytest.mark.parametrize("left", [b"?" * CHUNK, b"?" * (3 * CHUNK), b"?" * (4 * CHUNK)], ids=["part", "whole", "more"])
async def test_a_damaged_beginning_is_thrown_away(network: MemoryNetwork, node: Node, left: bytes) -> None:
    content = content_of(3)
    Holder(network.bus(), "holder", content)
    path = node.folders.blob(digest_of(content))
    path.parent.mkdir(parents=True)
    path.with_name(f"{path.name}.part").write_bytes(left)
    assignment, at = node.task(a=content)
    await node.place(assignment, at)
    assert at.inputs["a"].read_bytes() == content


async def test_an_unrecorded_copy_is_used_when_it_is_right_and_replaced_when_not(
    network: MemoryNetwork, node: Node
) -> None:
    content = content_of(1)
    path = node.folders.blob(digest_of(content))
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    assert [blob.path for blob in await node.place(*node.task(a=content))] == [path]
    node.index.clear()
    path.unlink()
    path.write_bytes(b"?" * CHUNK)
    holder = Holder(network.bus(), "holder", content)
    assignment, at = node.task(worker="again", a=content)
    await node.place(assignment, at)
    assert at.inputs["a"].read_bytes() == content
    assert holder.asked == [0]


async def test_a_holder_with_wrong_bytes_is_left_for_another(network: MemoryNetwork, node: Node) -> None:
    content, wrong = content_of(3), content_of(3, seed=2)
    for name in ("a", "b", "d", "e"):
        Holder(network.bus(), name, wrong, digest=digest_of(content))
    Holder(network.bus(), "c", content)
    assignment, at = node.task(a=content)
    await node.place(assignment, at)
    assert at.inputs["a"].read_bytes() == content


async def test_wrong_bytes_from_everybody_are_an_end(network: MemoryNetwork, node: Node) -> None:
    content, wrong = content_of(2), content_of(2, seed=2)
    holder = Holder(network.bus(), "liar", wrong, digest=digest_of(content))
    with pytest.raises(InputsMissing, match="other bytes than its digest says from liar") as caught:
        await node.place(*node.task(a=content))
    assert caught.value.keys == ("a",)
    assert len(holder.asked) == 2
    assert not node.folders.blob(digest_of(content)).exists()


async def test_wrong_bytes_in_one_part_only_are_found(network: MemoryNetwork, node: Node) -> None:
    content = content_of(4)
    half = Holder(network.bus(), "a", content[: 2 * CHUNK] + content_of(2, seed=2), digest=digest_of(content), until=3)
    Holder(network.bus(), "b", content)
    assignment, at = node.task(a=content)
    await node.place(assignment, at)
    assert at.inputs["a"].read_bytes() == content
    assert half.content != content


async def test_what_nobody_has_is_missing_and_named(node: Node, other: Node) -> None:
    there = other.make("made", b"there")
    assignment, at = node.task(x=b"nowhere", y=there, z=b"nowhere")
    with pytest.raises(InputsMissing) as caught:
        await node.place(assignment, at)
    assert sorted(caught.value.keys) == ["x", "z"]
    assert "nobody in reach has content" in caught.value.reasons["x"]


async def test_tasks_that_waited_for_a_fetch_learn_why_it_failed(node: Node) -> None:
    failed = []

    async def place(worker: str) -> None:
        try:
            await node.place(*node.task(worker=worker, a=b"nowhere"))
        except InputsMissing as error:
            failed.append(error.message)

    async with trio.open_nursery() as nursery:
        for worker in ("a", "b", "c"):
            nursery.start_soon(place, worker)
    assert len(failed) == 3


async def test_a_holder_that_promises_and_never_gives_is_an_end(network: MemoryNetwork, node: Node) -> None:
    content = content_of(2)
    Holder(network.bus(), "miser", content, until=0)
    with pytest.raises(InputsMissing, match="could not be fetched from miser"):
        await node.place(*node.task(a=content))


@pytest.mark.parametrize(("busy", "had"), [(15, True), (1000, False)])
async def test_a_holder_that_is_busy_is_asked_again_and_not_for_ever(
    network: MemoryNetwork, node: Node, busy: int, had: bool
) -> None:
    content = content_of(2)
    holder = Holder(network.bus(), "holder", content)
    holder.busy = busy
    assignment, at = node.task(a=content)
    if had:
        await node.place(assignment, at)
        assert at.inputs["a"].read_bytes() == content
    else:
        with pytest.raises(InputsMissing, match="could not be fetched from holder"):
            await node.place(assignment, at)
    assert (holder.busy == 0) is had


async def test_a_file_that_reads_as_an_error_reply_is_a_file_all_the_same(network: MemoryNetwork, node: Node) -> None:
    holder = Holder(network.bus(), "holder", BUSY)
    assignment, at = node.task(a=BUSY)
    await node.place(assignment, at)
    assert (at.inputs["a"].read_bytes(), holder.asked) == (BUSY, [0])


async def test_a_file_that_changed_is_not_held_any_more(node: Node, other: Node) -> None:
    here, there = node.make("here", b"content"), other.make("there", b"content")
    here.path.write_bytes(b"CONTENT")
    there.path.write_bytes(b"more content")
    with pytest.raises(InputsMissing):
        await node.place(*node.task(a=b"content"))
    there.path.write_bytes(b"content")
    os.utime(there.path, ns=(there.mtime_ns, there.mtime_ns))
    assignment, at = node.task(a=b"content")
    await node.place(assignment, at)
    assert at.inputs["a"].read_bytes() == b"content"


async def test_content_that_cannot_be_stored_is_this_nodes_problem(node: Node, other: Node) -> None:
    blob = other.make("made", b"content")
    (node.folder / "blobs").write_text("in the way")
    with pytest.raises(FileProblem, match=r"cannot be stored: .*/blobs"):
        await node.place(*node.task(a=blob))


# --- serving -------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "parameters", "words"),
    [
        ("wattle/test/blob/nonsense", "", "no digest"),
        (f"wattle/test/blob/{'A' * 64}", "", "no digest"),
        ("wattle/test/blob/*/there", "", "no digest"),
        (f"wattle/test/blob/{'a' * 64}/there", "offset=-1", "offset"),
        (f"wattle/test/blob/{'a' * 64}/there", "limit=0", "limit"),
        (f"wattle/test/blob/{'a' * 64}/there", f"limit={CHUNK + 1}", "limit"),
        (f"wattle/test/blob/{'a' * 64}/there", "limit=x", "limit"),
    ],
)
async def test_questions_that_cannot_be_understood_are_refused(
    network: MemoryNetwork, other: Node, key: str, parameters: str, words: str
) -> None:
    (reply,) = await network.bus().get(key, parameters=parameters, timeout=5)
    assert not reply.ok
    error = json.loads(reply.payload)
    assert error["code"] == "INVALID_REQUEST"
    assert words in error["message"]


async def test_parts_of_content_are_given_and_what_is_not_held_is_not_answered(
    network: MemoryNetwork, other: Node
) -> None:
    blob = other.make("made", b"0123456789")
    asker = network.bus()
    key = KEYS.blob_from(blob.digest, "there")
    for parameters, data in (
        ("offset=2;limit=3", b"234"),
        ("", b"0123456789"),
        ("offset=8", b"89"),
        ("offset=99", b""),
    ):
        (reply,) = await asker.get(key, parameters=parameters, timeout=5)
        assert (reply.key, reply.payload) == (key, data)
    assert await asker.get(KEYS.blob("b" * 64), timeout=5, everyone=True) == []
    assert await asker.get(KEYS.blob_from("b" * 64, "there"), timeout=5) == []
    other.declaration.undeclare()
    assert await asker.get(key, timeout=5) == []
