"""The spawner at its socket: what it does with clients that misbehave; and its parts that need no process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from wattle.runtime import channel
from wattle.runtime.channel import Connection, Lines, address, encode
from wattle.runtime.launch import find_program
from wattle.runtime.procfs import started_at

ROOT = Path(__file__).resolve().parents[2]
BOOT = f"import sys; sys.path.append({str(ROOT)!r}); from wattle.runtime.spawner import main; main(sys.argv[1:])"


class Client:
    """A raw connection that says what the test wants."""

    def __init__(self, folder: Path) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(20)
        with address(str(folder / "spawner.sock")) as path:
            self.sock.connect(path)
        self.file = self.sock.makefile("rb")

    def say(self, message: dict[str, Any]) -> None:
        self.sock.sendall(encode(message))

    def hear(self) -> dict[str, Any] | None:
        line = self.file.readline()
        return json.loads(line) if line else None

    def open(self, die: bool = False) -> Any:
        self.say({"open": {"environ": dict(os.environ), "die_with_runtime": die}})
        held = self.hear()
        assert held is not None
        return held["held"]


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    argv = [sys.executable, "-I", "-S", "-c", BOOT, str(tmp_path), "--linger", "5", "--grace", "1"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    yield process
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0


def spawn(folder: Path, id: str, *argv: str, after: str | None = None) -> dict[str, Any]:
    return {"spawn": [[id, argv, {}, str(folder), str(folder / "out"), str(folder / "err"), after, False]]}


@pytest.mark.parametrize(
    "garbage",
    [
        b"no json\n",
        b"[1]\n",
        b'{"spawn": [[1, 2]]}\n',
        b'{"kill": [["a", "b"]]}\n',
        b'{"open": 3}\n',
        b"\xff\n",
        b'{"kill": [["r/w/1", 9999]]}\n',
        b'{"spawn": [[["r/w/2"], ["true"], {}, "/", "/dev/null", "/dev/null", null, false]]}\n',
        b'{"spawn": [["r/w/2", "true", {}, "/", "/dev/null", "/dev/null", null, false]]}\n',
        b'{"spawn": [["r/w/2", ["true"], {"A": 1}, "/", "/dev/null", "/dev/null", null, false]]}\n',
        b'{"ack": 1}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_message_that_is_not_understood_ends_only_that_connection(
    spawner: subprocess.Popen[str], tmp_path: Path, garbage: bytes
) -> None:
    first = Client(tmp_path)
    first.open()
    first.say(spawn(tmp_path, "r/w/1", "sleep", "1000"))
    heard = first.hear()
    assert heard is not None
    assert [record[0] for record in heard["started"]] == ["r/w/1"]
    first.sock.sendall(garbage)
    assert first.hear() is None
    second = Client(tmp_path)
    assert [record[0] for record in second.open()["running"]] == ["r/w/1"]


def test_messages_may_arrive_in_pieces_and_together(spawner: subprocess.Popen[str], tmp_path: Path) -> None:
    client = Client(tmp_path)
    client.open()
    data = encode(spawn(tmp_path, "r/a/1", "true")) + encode(spawn(tmp_path, "r/b/1", "true"))
    for i in range(0, len(data), 7):
        client.sock.send(data[i : i + 7])
    ended: set[str] = set()
    while ended != {"r/a/1", "r/b/1"}:
        message = client.hear()
        assert message is not None
        ended |= {record[0] for record in message["exited"]}


def test_nothing_is_told_before_open_and_a_newer_connection_replaces_an_older(
    spawner: subprocess.Popen[str], tmp_path: Path
) -> None:
    first = Client(tmp_path)
    first.open()
    second = Client(tmp_path)
    assert first.hear() is None
    second.say({"ack": ["unknown"]})
    assert second.open()["pid"] == spawner.pid


def test_a_runtime_that_does_not_read_blocks_nobody(spawner: subprocess.Popen[str], tmp_path: Path) -> None:
    deaf = Client(tmp_path)
    deaf.open()
    deaf.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    name = "x" * 2000
    for i in range(1000):  # 2 MB of failures fill every buffer between the two
        deaf.say(spawn(tmp_path, f"r/{i}/1", name))
    deaf.say(spawn(tmp_path, "r/last/1", "true"))
    other = Client(tmp_path)
    held = other.open()
    assert held["pid"] == spawner.pid


def test_what_a_dead_runtime_asked_for_last_is_known_or_forgotten_never_half(
    spawner: subprocess.Popen[str], tmp_path: Path
) -> None:
    client = Client(tmp_path)
    client.open()
    for i in range(60):
        client.say(spawn(tmp_path, f"r/w/{i}", "true"))
    client.sock.close()
    client.file.close()
    second = Client(tmp_path)
    held = second.open()
    known = {record[0] for record in held["running"] + held["exited"]}
    for i in range(60):
        second.say(spawn(tmp_path, f"r/w/{i}", "true"))
    ended = {record[0] for record in held["exited"]}
    while len(ended) < 60:
        message = second.hear()
        assert message is not None
        assert not {record[0] for record in message["failed"]}
        ended |= {record[0] for record in message["exited"]}
    assert known <= ended


def test_stop_kills_what_ignores_sigterm(spawner: subprocess.Popen[str], tmp_path: Path) -> None:
    client = Client(tmp_path)
    client.open()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    client.say(spawn(tmp_path, "r/w/1", "sh", "-c", f"trap '' TERM; echo ready > {pipe}; while :; do sleep 1000; done"))
    assert pipe.read_text() == "ready\n"
    client.say({"stop": True})
    record = None
    while (message := client.hear()) is not None:
        record = (message.get("exited") or [record])[0]
    assert record is not None
    assert (record[2], record[6]) == (signal.SIGKILL, True)
    assert spawner.wait(timeout=20) == 0
    assert [exit[0] for exit in json.loads((tmp_path / "exits.json").read_text())] == ["r/w/1"]


def test_the_socket_is_for_this_user_only(spawner: subprocess.Popen[str], tmp_path: Path) -> None:
    assert (tmp_path / "spawner.sock").stat().st_mode & 0o777 == 0o600


def test_a_second_spawner_waits_until_the_first_has_ended(spawner: subprocess.Popen[str], tmp_path: Path) -> None:
    argv = [sys.executable, "-I", "-S", "-c", BOOT, str(tmp_path)]
    second = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)
    assert second.stdout is not None
    assert Client(tmp_path).open()["pid"] == spawner.pid
    spawner.terminate()
    assert second.stdout.readline() == "ready\n"
    assert Client(tmp_path).open()["pid"] == second.pid
    second.terminate()
    assert second.wait(timeout=20) == 0
    second.stdout.close()


def test_it_imports_nothing_but_the_standard_library_and_its_neighbours() -> None:
    code = BOOT.split("; main")[0] + "; print(*sorted(m for m in sys.modules if m.partition('.')[0] == 'wattle'))"
    code += "; print([m for m in sys.modules if 'site-packages' in str(getattr(sys.modules[m], '__file__', ''))])"
    done = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    modules, foreign = done.stdout.splitlines()
    neighbours = {f"wattle.runtime.{name}" for name in ("channel", "exits", "launch", "procfs", "spawner", "waiting")}
    assert set(modules.split()) == {"wattle", "wattle.runtime", *neighbours}
    assert foreign == "[]"


@given(st.lists(st.binary(max_size=20)), st.integers(1, 50))
def test_lines_are_cut_the_same_however_the_bytes_arrive(parts: list[bytes], step: int) -> None:
    sent = [part.replace(b"\n", b"") for part in parts]
    data = b"".join(line + b"\n" for line in sent) + b"rest"
    lines = Lines()
    got = [line for i in range(0, len(data), step) for line in lines.feed(data[i : i + step])]
    assert got == sent


def test_a_line_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "LINE_MAX", 100)
    lines = Lines()
    lines.feed(b"x" * 100)
    with pytest.raises(ValueError, match="longer than 100 bytes"):
        lines.feed(b"x")


def test_a_backlog_without_end_gives_the_connection_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channel, "BACKLOG_MAX", 1 << 20)
    ours, theirs = socket.socketpair()
    connection = Connection(ours)
    connection.tell({"text": "x" * 10_000})
    assert connection.send()
    connection.tell({"text": "x" * (4 << 20)})
    assert not connection.send()
    theirs.close()
    connection.unsent.clear()
    connection.tell({})
    assert not connection.send(), "the other end is gone"
    assert connection.receive() is None
    ours.close()


def test_programs_are_found_in_order_and_folders_passed_over(tmp_path: Path) -> None:
    for folder in ("a", "b", "c"):
        (tmp_path / folder).mkdir()
    (tmp_path / "a" / "tool").mkdir()
    for folder in ("b", "c"):
        (tmp_path / folder / "tool").touch(mode=0o755)
    path = os.pathsep.join(str(tmp_path / folder) for folder in ("missing", "a", "b", "c"))
    assert find_program("tool", path) == str(tmp_path / "b" / "tool")
    assert find_program("none", path) is None
    assert find_program("./x", path) == "./x"


def test_the_start_of_a_process_is_known() -> None:
    with subprocess.Popen(["sleep", "1000"]) as process:
        now = time.time()
        start = started_at(process.pid)
        process.kill()
    assert start is not None
    assert abs(start - now) < 1
    assert started_at(process.pid) is None
