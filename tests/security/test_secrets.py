"""A node's secrets: tasks get them, and nobody sees them in output, messages or stores."""

from __future__ import annotations

import os
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from tests.bus.networks import Inbox
from tests.runtime.node import KEYS, Node
from wattle.bus.base import Sample
from wattle.core.model import Assignment, Fact, TaskStatus
from wattle.document.compile import compile_document
from wattle.document.load import load_value
from wattle.errors import InvalidDocument, InvalidRequest, SettingsError
from wattle.runtime.masking import Mask
from wattle.runtime.secrets import Secrets

VALUE = "correct horse battery"


def secrets_file(folder: Path, text: str, mode: int = 0o600) -> Path:
    file = folder / "secrets.toml"
    file.write_text(text)
    file.chmod(mode)
    return file


# --- documents -------------------------------------------------------------------------------------------------------------


def worker(**more: Any) -> Any:
    return {"name": "p", "workers": [{"name": "a", "command": "x", **more}]}


def test_a_document_names_them() -> None:
    for given_, meant in ((["A", "B"], {"A": "A", "B": "B"}), ({"A": "the-entry"}, {"A": "the-entry"})):
        assert compile_document(load_value(worker(secrets=given_))).workers["a"].secrets == meant
    assert compile_document(load_value(worker())).workers["a"].secrets == {}


@pytest.mark.parametrize(
    ("wrong", "problem"),
    [
        ({"secrets": ["1A"]}, "1A"),
        ({"secrets": {"A": "../x"}}, "x"),
        ({"secrets": {"A": 5}}, "A"),
        ({"secrets": "A"}, "secrets"),
        ({"secrets": ["WATTLE_RUN"]}, "a variable that Wattle sets itself"),
        ({"secrets": ["A"], "env_vars": {"A": "1"}}, "among both secrets and env_vars"),
        (
            {"args": ["${secrets.A}"], "secrets": ["A"]},
            None,
        ),  # no reference: it stays text, and no value comes into a command line
    ],
)
def test_documents_that_name_none(wrong: dict[str, Any], problem: str | None) -> None:
    if problem is None:
        assert compile_document(load_value(worker(**wrong))).workers["a"].argv[-1] == "${secrets.A}"
        return
    with pytest.raises(InvalidDocument, match=problem):
        load_value(worker(**wrong))


# --- the file --------------------------------------------------------------------------------------------------------------


def test_values_by_variable(tmp_path: Path) -> None:
    secrets = Secrets(secrets_file(tmp_path, f'db = "{VALUE}"\nother = "something else"\n'))
    assert secrets.environment({"PASSWORD": "db"}) == {"PASSWORD": VALUE}
    assert secrets.environment({}) == {}
    with pytest.raises(InvalidRequest, match="'nothing' is not in this node's secrets file") as caught:
        secrets.environment({"A": "nothing", "B": "db"})
    assert VALUE not in str(caught.value)
    with pytest.raises(InvalidRequest, match="no secrets_file"):
        Secrets(None).environment({"A": "db"})


def test_a_changed_file_counts_and_old_values_stay_hidden(tmp_path: Path) -> None:
    secrets = Secrets(secrets_file(tmp_path, f'db = "{VALUE}"\n'))
    secrets_file(tmp_path, 'db = "another value"\n')
    assert secrets.environment({"P": "db"}) == {"P": "another value"}
    assert secrets.mask.text(f"{VALUE}, another value") == "*" * len(VALUE) + ", " + "*" * 13
    os.chmod(tmp_path / "secrets.toml", 0o644)
    with pytest.raises(InvalidRequest, match="may be used by others"):
        secrets.environment({"P": "db"})
    assert secrets.mask.text("another value") == "*" * 13
    os.chmod(tmp_path / "secrets.toml", 0o600)
    assert secrets.environment({"P": "db"}) == {"P": "another value"}


@pytest.mark.parametrize(
    ("text", "mode", "problem"),
    [
        ('a = "12345678"', 0o640, "chmod 600"),
        ('a = "12345678"', 0o604, "chmod 600"),
        ('a = "1234567"', 0o600, "'a' has 7 bytes"),
        (f'a = "{"x" * 4097}"', 0o600, "'a' has 4097 bytes"),
        ("a = 12345678", 0o600, "'a' is no text"),
        ('a = "1234\\u00005678"', 0o600, "'a' holds a NUL"),
        ('"../a" = "12345678"', 0o600, "must start with a letter"),
        (f'a = "{VALUE}\n', 0o600, "is no TOML"),
        (f"a = {'[' * 5000}", 0o600, "is nested too deeply"),
    ],
)
def test_files_that_are_refused_without_a_word_of_what_is_in_them(
    tmp_path: Path, text: str, mode: int, problem: str
) -> None:
    with pytest.raises(SettingsError, match=problem) as caught:
        Secrets(secrets_file(tmp_path, text, mode))
    assert not any(value in caught.value.message for value in ("1234567", VALUE, "xxxx"))


def test_somebody_elses_file(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to give a file away")
    file = secrets_file(tmp_path, 'a = "12345678"')
    os.chown(file, 12345, 12345)
    with pytest.raises(SettingsError, match="belongs to user 12345"):
        Secrets(file)


# --- output ----------------------------------------------------------------------------------------------------------------

values = st.sets(st.binary(min_size=1, max_size=5).map(lambda b: bytes(97 + x % 3 for x in b)), min_size=1, max_size=4)
texts = st.lists(st.integers(0, 2), max_size=40).map(lambda numbers: bytes(97 + n for n in numbers))


@given(values, texts, st.lists(st.integers(1, 9), min_size=1), st.lists(st.integers(0, 12), max_size=6))
def test_whatever_the_pieces_nothing_of_a_value_is_told(
    secret: set[bytes], text: bytes, limits: list[int], growth: list[int]
) -> None:
    """A file that grows is read piece by piece; what is told is the whole file with the values blanked, in the end all of it."""
    mask, told = Mask(secret), b""
    whole = mask.blank(text)
    with tempfile.TemporaryFile() as file:
        written = 0
        for turn, more in enumerate([*growth, len(text)]):
            growing = turn < len(growth)
            written = os.pwrite(file.fileno(), text[: written + more], 0)
            while piece := mask.read(file.fileno(), len(told), limits[turn % len(limits)], growing=growing):
                told += piece
                assert whole.startswith(told)
        assert told == whole
        for offset in range(len(text)):  # as who begins to read somewhere
            assert mask.read(file.fileno(), offset, 4, growing=False) == whole[offset : offset + 4]


@given(
    st.sets(st.text("ab", min_size=1, max_size=5).map(str.encode), max_size=3),
    st.text("abc", max_size=60).map(str.encode),
)
def test_every_byte_of_every_value_is_blanked_and_no_other(values: set[bytes], text: bytes) -> None:
    inside = {
        at + i for value in values for at in range(len(text)) if text.startswith(value, at) for i in range(len(value))
    }
    assert Mask(values).blank(text) == bytes(b"*"[0] if at in inside else byte for at, byte in enumerate(text))


def test_a_value_that_repeats_itself_is_looked_for_once() -> None:
    """Each of a million places compared with all of it took more than a minute, on the runtime's loop."""
    assert Mask({b"a" * 4096}).blank(b"a" * (1 << 20)) == b"*" * (1 << 20)


def test_values_that_overlap_are_blanked_as_one() -> None:
    assert Mask({b"abcab", b"cabxy"}).blank(b"-abcabxy-") == b"-*******-"
    assert Mask({b"aa"}).blank(b"baaab") == b"b***b"
    assert Mask(()).text("nothing to hide") == "nothing to hide"


# --- a node ----------------------------------------------------------------------------------------------------------------


class Exposed(Node):
    """A node with secrets, and somebody who listens to everything."""

    def __init__(self, folder: Path) -> None:
        self.file = secrets_file(folder, f'db = "{VALUE}"\n')
        super().__init__(folder, secrets_file=self.file)
        self.heard, self.live = bytearray(), Inbox()
        self.other.subscribe("wattle/**", self._overhear)

    def _overhear(self, sample: Sample) -> None:
        self.heard += (sample.payload or b"") + (sample.attachment or b"")
        if sample.key.startswith(f"{KEYS.root}/log/"):
            self.live(sample)

    async def run(self, worker: str, script: str, secrets: dict[str, str]) -> Fact:
        """How a task ends."""
        await self.assign(Assignment("r", worker, 1, 1, "p", script=script, secrets=secrets))
        return await self.end(worker)

    async def log(self, worker: str, parameters: str = "") -> bytes:
        key = f"{KEYS.root}/log/r/{worker}/1/stdout"
        (reply,) = await self.other.get(key, parameters=parameters, timeout=20)
        assert reply.ok
        return reply.payload


@pytest.fixture
async def node(tmp_path: Path) -> AsyncIterator[Exposed]:
    made = Exposed(tmp_path)
    async with made.running():
        yield made


async def test_a_task_has_its_secret_and_nobody_sees_it(node: Exposed) -> None:
    gate = node.folder / "gate"
    os.mkfifo(gate)
    script = f'printf "it is $P"; read line < {gate}; printf " and $P"; echo; cat /proc/$$/cmdline >&2'
    task = Assignment("r", "a", 1, 1, "p", script=script, secrets={"P": "db"})
    await node.assign(task)
    await node.live.until(lambda samples: sum(len(s.payload) for s in samples) >= len("it is ") + len(VALUE))
    await trio.to_thread.run_sync(gate.write_text, "go\n")
    assert (await node.end("a")).status is TaskStatus.SUCCEEDED
    hidden = b"*" * len(VALUE)
    assert await node.log("a") == b"it is " + hidden + b" and " + hidden + b"\n"
    pieces = [await node.log("a", f"offset={at};limit=3") for at in range(0, 60, 3)]
    assert b"".join(pieces) == await node.log("a")
    logs = node.folder / "logs" / "r"
    assert (logs / "a.1.stdout").read_text() == f"it is {VALUE} and {VALUE}\n"  # the file is the task's own
    assert VALUE.encode() not in (logs / "a.1.stderr").read_bytes()  # the command line
    assert VALUE.encode() not in node.heard
    for path in node.folder.glob("runtime.db*"):
        assert VALUE.encode() not in path.read_bytes()
    for path in node.folder.glob("*.log"):
        assert VALUE.encode() not in path.read_bytes()


async def test_a_secret_that_is_not_here_fails_its_task_before_it_starts(node: Exposed) -> None:
    proof = node.folder / "started"
    fact = await node.run("a", f"touch {proof}", {"P": "other"})
    assert (fact.status, fact.exit_code) == (TaskStatus.FAILED, None)
    assert fact.error is not None
    assert f"secret 'other' is not in this node's secrets file {node.file}" in fact.error
    os.chmod(node.file, 0o644)
    fact = await node.run("b", f"touch {proof}", {"P": "db"})
    assert (fact.status, "chmod 600" in (fact.error or "")) == (TaskStatus.FAILED, True)
    assert not proof.exists()
    os.chmod(node.file, 0o600)
    assert (await node.run("c", f"touch {proof}", {"P": "db"})).status is TaskStatus.SUCCEEDED
    assert proof.exists()


async def test_what_a_failed_start_is_blamed_on_holds_no_secret(node: Exposed) -> None:
    task = Assignment("r", "a", 1, 1, "p", argv=("no-such-program",), secrets={"PATH": "db"})
    await node.assign(task)
    error = (await node.end("a")).error
    assert error is not None
    assert f"not in PATH ({'*' * len(VALUE)})" in error
