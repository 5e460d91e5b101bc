"""The spawner at its socket: what it does with clients that misbehave; and its parts that need no process."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
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


def start(folder: Path, boot: str = BOOT) -> subprocess.Popen[str]:
    argv = [sys.executable, "-I", "-S", "-c", boot, str(folder), "--linger", "5", "--grace", "1"]
    process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.fixture
def spawner(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start(tmp_path)
    yield process
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 0


def spawn(folder: Path, id: str, *argv: str, room: str | None = "", needs: list[str] | None = None) -> dict[str, Any]:
    return {"spawn": [[id, argv, {}, str(folder), str(folder / "out"), str(folder / "err"), None, room, needs]]}


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
        b'{"spawn": [[["r/w/2"], ["true"], {}, "/", "/dev/null", "/dev/null", null, null, null]]}\n',
        b'{"spawn": [["r/w/2", "true", {}, "/", "/dev/null", "/dev/null", null, null, null]]}\n',
        b'{"spawn": [["r/w/2", ["true"], {"A": 1}, "/", "/dev/null", "/dev/null", null, null, null]]}\n',
        b'{"spawn": [["r/w/2", ["true"], {}, "/", "/dev/null", "/dev/null", null, null, []]]}\n',
        b'{"spawn": [["r/w/2", ["true"], {}, "/", "/dev/null", "/dev/null", null, "", "r/w/1"]]}\n',
        b'{"spawn": [["r/w/2", ["true"], {}, "/", "/dev/null", "/dev/null", null, 1, []]]}\n',
        b'{"spawn": [["r/w/2", ["true"], {}, "/", "/dev/null", "/dev/null", null, "", [["r/w/1"]]]]}\n',
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


def test_ends_are_seen_where_whoever_started_the_spawner_ignores_them(tmp_path: Path) -> None:
    process = start(tmp_path, "import signal; signal.signal(signal.SIGCHLD, signal.SIG_IGN); " + BOOT)
    client = Client(tmp_path)
    client.open()
    client.say(spawn(tmp_path, "r/a/1", "sh", "-c", "exit 3"))
    assert told(client, "exited", "r/a/1")[1] == 3
    process.terminate()
    process.communicate(timeout=20)


def test_an_end_interrupts_none_of_its_threads_and_no_signal_is_held_back_in_tasks(
    spawner: subprocess.Popen[str], tmp_path: Path
) -> None:
    client = Client(tmp_path)
    client.open()
    client.say(spawn(tmp_path, "r/a/1", "grep", "^SigBlk", "/proc/self/status"))
    told(client, "exited", "r/a/1")
    threads = [thread / "status" for thread in Path(f"/proc/{spawner.pid}/task").iterdir()]
    assert len(threads) == 2
    blocked = [
        int(line.split()[1], 16)
        for status in (tmp_path / "out", *threads)
        for line in status.read_text().splitlines()
        if line.startswith("SigBlk:")
    ]
    assert blocked == [0, *[1 << signal.SIGCHLD - 1] * 2]


@pytest.mark.parametrize("program", ["/no/such/program", "no interpreter", "no log file"])
def test_what_cannot_be_started_ends_nothing_else(spawner: subprocess.Popen[str], tmp_path: Path, program: str) -> None:
    """The C library reaps its process, which the thread that waits for ends may have seen by then."""
    if program == "no interpreter":
        program = str(tmp_path / "script")
        Path(program).write_text("#!/no/such/interpreter\n")
        Path(program).chmod(0o700)
    client = Client(tmp_path)
    client.open()
    client.say(spawn(tmp_path, "r/sleeps/1", "sleep", "1000"))
    told(client, "started", "r/sleeps/1")
    for number in range(100):
        request = spawn(tmp_path, f"r/w{number}/1", "true" if program == "no log file" else program)
        if program == "no log file":
            request["spawn"][0][4] = str(tmp_path / "none" / "out")
        client.say(request)
        told(client, "failed", f"r/w{number}/1")
    client.say({"kill": [["r/sleeps/1", signal.SIGKILL]]})
    assert told(client, "exited", "r/sleeps/1")[2] == signal.SIGKILL


def test_a_fault_in_the_thread_that_waits_for_ends_ends_the_spawner(tmp_path: Path) -> None:
    """Its runtime then starts another; one that saw no ends any more would keep its tasks running for ever."""
    faulty = "from wattle.runtime.children import Children; Children.await_end = None; "
    process = start(tmp_path, BOOT.replace("from wattle", faulty + "from wattle", 1))
    _, problem = process.communicate(timeout=20)
    assert "'NoneType' object is not callable" in problem
    assert process.returncode == 1


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
    neighbours = {
        f"wattle.runtime.{name}"
        for name in ("channel", "children", "launch", "outcomes", "procfs", "spawner", "waiting")
    }
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


# --- one after another ------------------------------------------------------------------------------------------------


def waits(folder: Path, id: str, *needs: str, argv: Sequence[str] = ("true",), room: str = "") -> dict[str, Any]:
    """One that waits for room, and for the success of others."""
    return spawn(folder, id, *argv, room=room, needs=list(needs))


def told(client: Client, kind: str, id: str) -> Any:
    """Wait until something is told of a task."""
    while True:
        message = client.hear()
        assert message is not None
        for record in message.get(kind, ()):
            if id in (record, record[0]):
                return record


def blocked(folder: Path, id: str) -> dict[str, Any]:
    """A task that ends when a line is written to its FIFO."""
    pipe = folder / id.replace("/", "-")
    os.mkfifo(pipe)
    return spawn(folder, id, "sh", "-c", f"read line < {pipe}; exit $line")


def heard(client: Client, folder: Path) -> None:
    """Wait until all that was said before has been read."""
    client.say(spawn(folder, "r/probe/1", "true", room=None))
    told(client, "exited", "r/probe/1")
    client.say({"ack": ["r/probe/1"]})


def let_go(folder: Path, id: str, code: int = 0) -> None:
    (folder / id.replace("/", "-")).write_text(f"{code}\n")


def test_one_that_waits_starts_in_the_room_of_one_that_has_ended(
    spawner: subprocess.Popen[str], tmp_path: Path
) -> None:
    client = Client(tmp_path)
    client.open()
    client.say(blocked(tmp_path, "r/a/1"))
    client.say(waits(tmp_path, "r/b/1"))
    client.say(waits(tmp_path, "r/c/1", "r/b/1"))
    told(client, "started", "r/a/1")
    again = Client(tmp_path)
    assert again.open()["waiting"] == ["r/b/1", "r/c/1"]
    let_go(tmp_path, "r/a/1", 1)
    ended = told(again, "exited", "r/c/1")
    exits = {record[0]: record for record in Client(tmp_path).open()["exited"]}
    assert [exits[f"r/{name}/1"][1] for name in "abc"] == [1, 0, 0]
    assert exits["r/a/1"][5] <= exits["r/b/1"][9] <= exits["r/b/1"][5] <= exits["r/c/1"][9] == ended[9]
    assert [exits[f"r/{name}/1"][11] for name in "abc"] == ["r/b/1", "r/c/1", None], "who has taken over whose room"


def test_room_goes_to_the_first_of_its_kind_that_needs_nothing_more(
    spawner: subprocess.Popen[str], tmp_path: Path
) -> None:
    client = Client(tmp_path)
    client.open()
    for name in "abx":
        client.say(blocked(tmp_path, f"r/{name}/1"))
    client.say(waits(tmp_path, "r/other/1", room="gpus=1.0"))
    client.say(waits(tmp_path, "r/d/1", "r/a/1", "r/b/1"))
    client.say(waits(tmp_path, "r/e/1", "r/b/1"))
    heard(client, tmp_path)
    let_go(tmp_path, "r/x/1")
    assert told(client, "exited", "r/x/1")[11] is None, "nobody may start yet"
    let_go(tmp_path, "r/b/1")
    told(client, "exited", "r/e/1")
    let_go(tmp_path, "r/a/1")
    told(client, "exited", "r/d/1")
    held = Client(tmp_path).open()
    assert {record[0]: record[11] for record in held["exited"] if record[11]} == {"r/b/1": "r/e/1", "r/a/1": "r/d/1"}
    assert held["waiting"] == ["r/other/1"]


def test_room_that_nobody_may_take_over_is_left_and_so_is_that_of_one_that_cannot_start(
    spawner: subprocess.Popen[str], tmp_path: Path
) -> None:
    client = Client(tmp_path)
    client.open()
    own = blocked(tmp_path, "r/own/1")
    own["spawn"][0][-2] = None
    client.say(own)
    client.say(waits(tmp_path, "r/b/1", argv=["no-such-command"]))
    client.say(waits(tmp_path, "r/c/1"))
    heard(client, tmp_path)
    let_go(tmp_path, "r/own/1")
    assert told(client, "exited", "r/own/1")[11] is None
    client.say(spawn(tmp_path, "r/a/1", "true"))
    told(client, "exited", "r/c/1")
    held = Client(tmp_path).open()
    assert [record[11] for record in held["exited"]] == [None, "r/c/1", None]
    assert [record[0] for record in held["failed"]] == ["r/b/1"]


@pytest.mark.parametrize("how", ["exit status", "signal", "no start"])
def test_one_that_needs_a_success_is_skipped_without_it(
    spawner: subprocess.Popen[str], tmp_path: Path, how: str
) -> None:
    client = Client(tmp_path)
    client.open()
    client.say(blocked(tmp_path, "r/a/1"))
    before = "r/a/1"
    if how == "no start":
        before = "r/x/1"
        client.say(waits(tmp_path, "r/x/1", argv=["no-such-command"]))
    client.say(waits(tmp_path, "r/b/1", before))
    client.say(waits(tmp_path, "r/c/1", "r/b/1", "r/a/1"))
    client.say(waits(tmp_path, "r/d/1"))
    told(client, "started", "r/a/1")
    if how == "signal":
        client.say({"kill": [["r/a/1", signal.SIGTERM]]})
    else:
        let_go(tmp_path, "r/a/1", int(how == "exit status"))
    message: dict[str, Any] = {}
    while "r/d/1" not in [record[0] for record in message.get("exited", ())]:
        heard = client.hear()
        assert heard is not None
        message = {**message, **{kind: [*message.get(kind, []), *heard[kind]] for kind in heard}}
    assert message["skipped"] == ["r/b/1", "r/c/1"]


def test_one_that_ends_well_after_a_signal_has_not_succeeded(spawner: subprocess.Popen[str], tmp_path: Path) -> None:
    client = Client(tmp_path)
    client.open()
    pipe = tmp_path / "ready"
    os.mkfifo(pipe)
    client.say(spawn(tmp_path, "r/a/1", "sh", "-c", f"trap 'exit 0' TERM; echo > {pipe}; while :; do sleep 0.1; done"))
    client.say(waits(tmp_path, "r/b/1", "r/a/1"))
    pipe.read_text()
    client.say({"kill": [["r/a/1", signal.SIGTERM]]})
    assert told(client, "skipped", "r/b/1") == "r/b/1"
    (record,) = Client(tmp_path).open()["exited"]
    assert (record[1], record[7]) == (0, True)


@pytest.mark.parametrize(
    "order", [{"revoke": ["r/b/1"]}, {"kill": [["r/b/1", signal.SIGTERM]]}], ids=["revoke", "kill"]
)
def test_one_that_waits_and_is_not_to_start_is_skipped_with_what_needs_it_and_the_next_has_its_turn(
    spawner: subprocess.Popen[str], tmp_path: Path, order: dict[str, Any]
) -> None:
    client = Client(tmp_path)
    client.open()
    client.say(blocked(tmp_path, "r/a/1"))
    client.say(waits(tmp_path, "r/b/1"))
    client.say(waits(tmp_path, "r/c/1"))
    client.say(waits(tmp_path, "r/d/1", "r/a/1", "r/b/1"))
    client.say(order)
    assert told(client, "skipped", "r/d/1") == "r/d/1"
    let_go(tmp_path, "r/a/1")
    told(client, "exited", "r/c/1")
    held = Client(tmp_path).open()
    assert (held["skipped"], held["waiting"]) == (["r/b/1", "r/d/1"], [])


def test_revoking_one_that_runs_does_nothing(spawner: subprocess.Popen[str], tmp_path: Path) -> None:
    client = Client(tmp_path)
    client.open()
    client.say(blocked(tmp_path, "r/a/1"))
    client.say({"revoke": ["r/a/1", "r/unknown/1"]})
    let_go(tmp_path, "r/a/1", 3)
    assert told(client, "exited", "r/a/1")[1] == 3


def test_one_that_waits_starts_at_once_when_asked_for_without_needs(
    spawner: subprocess.Popen[str], tmp_path: Path
) -> None:
    client = Client(tmp_path)
    client.open()
    client.say(blocked(tmp_path, "r/a/1"))
    client.say(waits(tmp_path, "r/b/1", "r/a/1"))
    client.say(waits(tmp_path, "r/c/1", "r/b/1"))
    client.say(waits(tmp_path, "r/b/1", "r/c/1"))  # told twice: it goes on waiting
    client.say(spawn(tmp_path, "r/b/1", "true"))
    told(client, "exited", "r/c/1")
    again = Client(tmp_path)
    held = again.open()
    assert [record[0] for record in held["running"]] == ["r/a/1"]
    let_go(tmp_path, "r/a/1")
    told(again, "exited", "r/a/1")
    assert sorted(record[0] for record in Client(tmp_path).open()["exited"]) == ["r/a/1", "r/b/1", "r/c/1"]


def test_what_fails_to_start_or_is_skipped_is_kept_until_it_is_acknowledged(
    spawner: subprocess.Popen[str], tmp_path: Path
) -> None:
    first = Client(tmp_path)
    first.open()
    first.say(blocked(tmp_path, "r/a/1"))
    first.say(waits(tmp_path, "r/b/1", "r/a/1", argv=["no-such-command"]))
    first.say(waits(tmp_path, "r/c/1", "r/b/1"))
    told(first, "started", "r/a/1")
    first.sock.shutdown(socket.SHUT_RDWR)  # nobody is there when it happens
    let_go(tmp_path, "r/a/1")
    second = Client(tmp_path)
    held = second.open()
    while not held["exited"]:
        second = Client(tmp_path)
        held = second.open()
    assert [record[0] for record in held["failed"]] == ["r/b/1"]
    assert held["skipped"] == ["r/c/1"]
    second.say(waits(tmp_path, "r/b/1", "r/a/1"))
    assert "no-such-command" in told(second, "failed", "r/b/1")[1], "it is not tried again"
    second.say({"ack": ["r/a/1", "r/b/1", "r/c/1"]})
    held = Client(tmp_path).open()
    assert not held["failed"]
    assert not held["skipped"]
    assert not held["exited"]


def test_one_that_goes_by_an_end_starts_though_that_is_acknowledged_right_after(
    spawner: subprocess.Popen[str], tmp_path: Path
) -> None:
    """A busy spawner reads both at once: the runtime had asked for the one before it heard of the other's end."""
    client = Client(tmp_path)
    client.open()
    client.say(blocked(tmp_path, "r/x/1"))
    client.say(spawn(tmp_path, "r/a/1", "true"))
    told(client, "exited", "r/a/1")
    follower = waits(tmp_path, "r/b/1", "r/a/1")
    client.sock.sendall(encode(follower) + encode({"ack": ["r/a/1"]}))
    heard(client, tmp_path)
    let_go(tmp_path, "r/x/1")
    assert told(client, "exited", "r/b/1")[1] == 0
    assert [record[0] for record in Client(tmp_path).open()["exited"]] == ["r/x/1", "r/b/1"]


def test_a_spawner_whose_first_task_with_a_limit_on_its_disk_waited_there_ends(
    spawner: subprocess.Popen[str], tmp_path: Path
) -> None:
    client = Client(tmp_path)
    client.open()
    client.say(blocked(tmp_path, "r/a/1"))
    limited = waits(tmp_path, "r/b/1")
    nothing: dict[str, Any] = {
        "wrap": [],
        "group": None,
        "environ": None,
        "sandboxed": False,
        "reasons": {},
        "given": [],
    }
    limited["spawn"][0][6] = {**nothing, "disk": {"most": 1 << 30, "paths": [str(tmp_path)]}}
    client.say(limited)
    heard(client, tmp_path)
    let_go(tmp_path, "r/a/1")
    assert told(client, "exited", "r/b/1")[1] == 0


def test_while_short_tasks_end_one_after_the_other_the_runtime_is_heard_and_told(
    spawner: subprocess.Popen[str], tmp_path: Path
) -> None:
    client = Client(tmp_path)
    client.open()
    for i in range(8, 1000):
        client.say(waits(tmp_path, f"r/w{i}/1"))
    client.say({"spawn": [spawn(tmp_path, f"r/w{i}/1", "true")["spawn"][0] for i in range(8)]})
    told(client, "exited", "r/w0/1")
    client.say({"revoke": ["r/w999/1"]})
    told(client, "skipped", "r/w999/1")
    assert Client(tmp_path).open()["waiting"], "it was told before the others had had their turn"


def test_one_that_needs_what_is_not_known_is_skipped(spawner: subprocess.Popen[str], tmp_path: Path) -> None:
    client = Client(tmp_path)
    client.open()
    client.say(blocked(tmp_path, "r/x/1"))
    client.say(waits(tmp_path, "r/b/1", "r/x/1", "r/unknown/1"))
    assert told(client, "skipped", "r/b/1") == "r/b/1"
    let_go(tmp_path, "r/x/1")
    assert told(client, "exited", "r/x/1")[11] is None


def test_a_folder_that_the_one_before_removed_is_made_again(spawner: subprocess.Popen[str], tmp_path: Path) -> None:
    client = Client(tmp_path)
    client.open()
    shared = tmp_path / "shared"
    shared.mkdir()
    first, second = spawn(tmp_path, "r/a/1", "rm", "-r", str(shared)), waits(tmp_path, "r/b/1")
    second["spawn"][0][3] = str(shared)
    client.say({"spawn": [*first["spawn"], *second["spawn"]]})
    assert told(client, "exited", "r/b/1")[1] == 0


def test_stopping_skips_what_waits(spawner: subprocess.Popen[str], tmp_path: Path) -> None:
    client = Client(tmp_path)
    client.open()
    client.say(blocked(tmp_path, "r/a/1"))
    client.say(waits(tmp_path, "r/b/1"))
    told(client, "started", "r/a/1")
    client.say({"stop": True})
    assert told(client, "skipped", "r/b/1") == "r/b/1"


def test_a_long_series_ends_and_what_escaped_from_it_is_swept(spawner: subprocess.Popen[str], tmp_path: Path) -> None:
    client = Client(tmp_path)
    client.open()
    script = f"setsid sleep 1000 & echo $! >> {tmp_path}/escaped"
    client.say(blocked(tmp_path, "r/w0/1"))
    for i in range(1, 40):
        client.say(waits(tmp_path, f"r/w{i}/1", f"r/w{i - 1}/1", argv=["sh", "-c", script]))
    let_go(tmp_path, "r/w0/1")
    told(client, "exited", "r/w39/1")
    for pid in map(int, (tmp_path / "escaped").read_text().split()):
        try:
            handle = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        assert select.select([handle], [], [], 20)[0], "an escaped process lives on"
        os.close(handle)
