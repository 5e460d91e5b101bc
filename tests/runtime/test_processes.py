"""The spawner with real processes, through the runtime's side of it. Tasks block on FIFOs, so that every step is an event."""

from __future__ import annotations

import errno
import os
import signal
import time
from pathlib import Path

import pytest
import trio
import trio.testing

from tests.runtime.spawning import Events, fifo, gone, read_line, release, request, shell, spawner_pid, task
from wattle.errors import WattleError
from wattle.runtime.launch import disk_full
from wattle.runtime.launching import start_ahead
from wattle.runtime.processes import (
    Exited,
    Held,
    SpawnerLost,
    SpawnFailed,
    SpawnRequest,
    Started,
    kill_orphans,
    open_processes,
)


async def test_a_task_runs_in_its_folder_with_its_files_and_its_exit_code_is_told(data: Path) -> None:
    events = Events()
    before = time.time()
    async with open_processes(data, events, die_with_runtime=True) as processes:
        assert isinstance(events.all[0], Held)
        script = 'echo "$PWD $A $WATTLE_TASK"; cat; echo problem >&2; exit 3'
        processes.spawn([request(data, task(), "sh", "-c", script, env={"A": "one"})])
        exited = await events.wait(Exited)
        started = events.of(Started)[0]
    assert (exited.exit_code, exited.signal, exited.stopped) == (3, None, False)
    assert before <= started.at <= exited.at <= time.time()
    assert started.pid > 1
    assert 0 < exited.usage.cpu_seconds < 10
    assert 1 << 20 < exited.usage.memory_peak < 1 << 30
    assert (data / "w.stdout").read_text() == f"{data} one run/w/1\n"
    assert (data / "w.stderr").read_text() == "problem\n"
    assert (data / "w.stdout").stat().st_mode & 0o777 == 0o600


async def test_a_spawner_started_ahead_is_the_one_that_is_used(data: Path) -> None:
    starting = start_ahead(data)
    assert starting is not None
    events = Events()
    async with open_processes(data, events, die_with_runtime=True, starting=starting) as processes:
        assert spawner_pid(data) == starting.pid
        starting.give_up()  # it is taken
        processes.spawn([request(data, task(), "true")])
        assert (await events.wait(Exited)).exit_code == 0
        assert start_ahead(data) is None  # there is one


async def test_a_spawner_started_ahead_that_nobody_takes_is_ended(data: Path) -> None:
    starting = start_ahead(data)
    assert starting is not None
    starting.give_up()
    with pytest.raises(ProcessLookupError):
        os.kill(starting.pid, 0)
    async with open_processes(data, Events(), die_with_runtime=True):
        assert spawner_pid(data) != starting.pid


async def test_memory_of_a_task_is_measured(data: Path) -> None:
    events = Events()
    async with open_processes(data, events, die_with_runtime=True) as processes:
        processes.spawn([request(data, task(), "dd", "if=/dev/zero", "of=/dev/null", "bs=64M", "count=1")])
        assert (await events.wait(Exited)).usage.memory_peak > 64 << 20


async def test_logs_of_a_second_start_are_appended(data: Path) -> None:
    events = Events()
    async with open_processes(data, events, die_with_runtime=True) as processes:
        for attempt in (1, 2):
            processes.spawn([shell(data, task(attempt=attempt), f"echo {attempt}")])
            await events.wait(Exited, task(attempt=attempt))
    assert (data / "w.stdout").read_text() == "1\n2\n"


async def test_a_task_leads_its_own_session_with_default_signals_and_no_foreign_files(data: Path) -> None:
    events = Events()
    async with open_processes(data, events, die_with_runtime=True) as processes:
        script = "cut -d' ' -f1,5,6 /proc/$$/stat; grep -E 'Sig(Ign|Blk)' /proc/self/status; ls /proc/$$/fd"
        processes.spawn([shell(data, task(), script)])
        pid = (await events.wait(Started)).pid
        await events.wait(Exited)
    lines = (data / "w.stdout").read_text().splitlines()
    assert lines[0] == f"{pid} {pid} {pid}"
    blocked, ignored = (int(line.split()[1], 16) for line in lines[1:3])
    assert (blocked, ignored & ~(0b11 << 31)) == (0, 0), "glibc has 32 and 33 ignored for itself"
    assert {"0", "1", "2"} <= set(lines[3:]) <= {"0", "1", "2", "10", "255"}, "a shell may keep 10 or 255 for itself"


async def test_a_signal_reaches_the_whole_group_and_is_told(data: Path) -> None:
    events = Events()
    pipe = fifo(data / "pipe")
    async with open_processes(data, events, die_with_runtime=True) as processes:
        processes.spawn([shell(data, task(), f"sleep 1000 & echo $! > {pipe}; wait; wait")])
        background = int(await read_line(pipe))
        processes.kill([(task(), signal.SIGTERM), (task("unknown"), signal.SIGTERM)])
        exited = await events.wait(Exited)
        await gone(background)
    assert (exited.exit_code, exited.signal) == (None, signal.SIGTERM)


async def test_nothing_of_a_group_survives_its_leader(data: Path) -> None:
    events = Events()
    pipe = fifo(data / "pipe")
    async with open_processes(data, events, die_with_runtime=True) as processes:
        script = f"(trap '' TERM HUP; echo $$; exec sleep 1000) & echo $! > {pipe}; exit 0"
        processes.spawn([shell(data, task(), script)])
        background = int(await read_line(pipe))
        assert (await events.wait(Exited)).exit_code == 0
        await gone(background)


@pytest.mark.parametrize("wiped", [False, True], ids=["with its environment", "with an empty environment"])
async def test_a_process_that_left_the_session_ends_with_its_task(data: Path, wiped: bool) -> None:
    events = Events()
    pipe, gate = fifo(data / "pipe"), fifo(data / "gate")
    empty = "env -i PATH=$PATH" if wiped else ""
    async with open_processes(data, events, die_with_runtime=True) as processes:
        script = f"( {empty} setsid sh -c 'echo $$ > {pipe}; exec sleep 1000' & ); read x < {gate}; exit 5"
        processes.spawn([shell(data, task(), script)])
        escaped = int(await read_line(pipe))
        assert os.getsid(escaped) == escaped
        await release(gate)
        assert (await events.wait(Exited)).exit_code == 5
        await gone(escaped)


async def test_the_end_of_one_task_leaves_the_escaped_processes_of_another_alone(data: Path) -> None:
    events = Events()
    pipe, gate = fifo(data / "pipe"), fifo(data / "gate")
    async with open_processes(data, events, die_with_runtime=True) as processes:
        script = f"( setsid sh -c 'echo $$ > {pipe}; read x < {gate}; echo alive > {pipe}' & ); read x < {data}/never"
        fifo(data / "never")
        processes.spawn([shell(data, task("daemon"), script)])
        escaped = int(await read_line(pipe))
        processes.spawn([request(data, task("other"), "true")])
        await events.wait(Exited, task("other"))
        await release(gate)
        assert await read_line(pipe) == "alive"
        await gone(escaped)


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("no-such-program",), ("'no-such-program'", "PATH", "install it")),
        (("./absent",), ("/absent does not exist",)),
        (("./plain",), ("/plain is not executable", "chmod +x")),
        (("./sub",), ("/sub is a folder",)),
        (("./lost",), ("/lost cannot start", "#! line")),
        (("./noshebang",), ("/noshebang", "no #! line")),
        (("echo", "x" * 200_000), ("too long",)),
        (("echo", "a\0b"), ("not valid", "null")),
        ((), ("empty",)),
    ],
)
async def test_a_command_that_cannot_start_is_explained(
    data: Path, argv: tuple[str, ...], words: tuple[str, ...]
) -> None:
    (data / "plain").write_text("#!/bin/sh\n")
    (data / "sub").mkdir()
    for name, text in (("lost", "#!/no/such/interpreter\n"), ("noshebang", "text")):
        (data / name).write_text(text)
        (data / name).chmod(0o755)
    events = Events()
    async with open_processes(data, events, die_with_runtime=True) as processes:
        processes.spawn([request(data, task(), *argv), request(data, task("next"), "true")])
        failed = await events.wait(SpawnFailed)
        await events.wait(Exited, task("next"))
    assert failed.id == task()
    for word in words:
        assert word in failed.error


async def test_folders_and_logs_that_cannot_be_used_are_explained(data: Path) -> None:
    events = Events()
    good = request(data, task(), "true")
    async with open_processes(data, events, die_with_runtime=True) as processes:
        for i, (cwd, stdout, stderr) in enumerate(
            [
                (Path("/proc/nowhere"), good.stdout, good.stderr),
                (Path("/dev/null"), good.stdout, good.stderr),
                (data, data / "missing" / "out", good.stderr),
                (data, good.stdout, data),
            ]
        ):
            processes.spawn([SpawnRequest(task(f"w{i}"), ("true",), {}, str(cwd), str(stdout), str(stderr))])
        await events.wait(SpawnFailed, count=4)
    errors = [event.error for event in events.of(SpawnFailed)]
    assert "working folder /proc/nowhere cannot be entered: No such file" in errors[0]
    assert "working folder /dev/null cannot be entered: Not a directory" in errors[1]
    assert f"log file {data}/missing/out cannot be written: No such file" in errors[2]
    assert f"log file {data} cannot be written: Is a directory" in errors[3]


async def test_commands_are_found_by_the_tasks_own_path(data: Path) -> None:
    (data / "bin").mkdir()
    (data / "bin" / "mytool").write_text("#!/bin/sh\nexit 7\n")
    (data / "bin" / "mytool").chmod(0o755)
    events = Events()
    async with open_processes(data, events, die_with_runtime=True) as processes:
        processes.spawn([request(data, task(), "mytool", env={"PATH": f"{data}/bin:/usr/bin:/bin"})])
        assert (await events.wait(Exited)).exit_code == 7


async def test_an_id_that_is_known_is_not_started_again(data: Path) -> None:
    events = Events()
    gate = fifo(data / "gate")
    again = shell(data, task(), f"echo once; read x < {gate}")
    async with open_processes(data, events, die_with_runtime=True) as processes:
        processes.spawn([again, again])
        first, second = await events.wait(Started), await events.wait(Started, count=2)
        assert first == second
        await release(gate)
        exited = await events.wait(Exited)
        processes.spawn([again])
        assert await events.wait(Exited, count=2) == exited
        processes.acknowledge([task()])
        processes.spawn([shell(data, task(), "echo twice")])
        await events.wait(Exited, count=3)
    assert (data / "w.stdout").read_text() == "once\ntwice\n"


async def test_a_kill_follows_a_spawn_that_is_still_waiting_for_its_turn(data: Path) -> None:
    events = Events()
    async with open_processes(data, events, die_with_runtime=True) as processes:
        many = [request(data, task("w", i), "sleep", "1000") for i in range(1, 41)]
        processes.spawn(many)
        processes.kill([(r.id, signal.SIGKILL) for r in many])
        await events.wait(Exited, count=40)
    assert {event.signal for event in events.of(Exited)} == {signal.SIGKILL}


async def test_five_hundred_in_one_batch(data: Path) -> None:
    events = Events()
    async with open_processes(data, events, die_with_runtime=True) as processes:
        processes.spawn([request(data, task("w", i), "true") for i in range(500)])
        await events.wait(Exited, count=500)
    assert {event.id.attempt for event in events.of(Exited)} == set(range(500))
    assert {event.exit_code for event in events.of(Exited)} == {0}
    assert events.batches < 500


async def test_tasks_outlive_the_runtime_and_their_true_exits_are_told_until_acknowledged(data: Path) -> None:
    gate, other = fifo(data / "gate"), fifo(data / "other")
    first = Events()
    async with open_processes(data, first) as processes:
        processes.spawn(
            [shell(data, task("a"), f"read x < {gate}; exit 4"), shell(data, task("b"), f"read x < {other}")]
        )
        await first.wait(Started, count=2)
    await release(gate)
    await gone(first.of(Started, task("a"))[0].pid)

    second = Events()
    async with open_processes(data, second):
        await second.exit(task("a"))
    third = Events()
    async with open_processes(data, third) as processes:
        held = await third.wait(Held)
        assert [(event.id, event.exit_code) for event in held.exited] == [(task("a"), 4)]
        assert held.running == tuple(first.of(Started, task("b")))
        processes.acknowledge([task("a")])
        await release(other)
        await third.wait(Exited, task("b"))
    fourth = Events()
    async with open_processes(data, fourth) as processes:
        held = await fourth.wait(Held)
        assert [event.id for event in held.exited] == [task("b")]
        await processes.stop()


async def test_the_environment_is_that_of_the_runtime_now(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    events = Events()
    async with open_processes(data, events):
        pass
    monkeypatch.setenv("SINCE", "restart")
    async with open_processes(data, events, die_with_runtime=True) as processes:
        processes.spawn([shell(data, task(), "echo $SINCE")])
        await events.wait(Exited)
    assert (data / "w.stdout").read_text() == "restart\n"


async def test_exits_survive_the_spawner_that_nobody_needs_any_more(data: Path) -> None:
    gate = fifo(data / "gate")
    first = Events()
    async with open_processes(data, first, linger=0) as processes:
        processes.spawn([shell(data, task(), f"read x < {gate}; kill -9 $$")])
        await first.wait(Started)
        spawner = spawner_pid(data)
    await release(gate)
    await gone(spawner)
    assert (data / "exits.json").exists()
    assert (data / "spawner.lock").read_text() == ""
    assert not (data / "spawner.sock").exists()

    second = Events()
    async with open_processes(data, second, die_with_runtime=True) as processes:
        (exited,) = (await second.wait(Held)).exited
        assert (exited.id, exited.signal) == (task(), signal.SIGKILL)
        processes.acknowledge([task()])
        await processes.stop()
    assert not (data / "exits.json").exists()


async def test_a_damaged_exits_file_is_reported_and_passed_over(data: Path) -> None:
    (data / "exits.json").write_text("[[")
    events = Events()
    async with open_processes(data, events) as processes:
        assert (await events.wait(Held)).exited == ()
        await processes.stop()
    assert "exits.json is damaged" in (data / "spawner.log").read_text()


async def test_a_spawner_that_is_to_die_with_its_runtime_ends_everything(data: Path) -> None:
    pipe = fifo(data / "pipe")
    events = Events()
    async with open_processes(data, events, die_with_runtime=True) as processes:
        script = f"( setsid sh -c 'echo $$ > {pipe}; exec sleep 1000' & ); exec sleep 1000"
        processes.spawn([shell(data, task(), script)])
        escaped = int(await read_line(pipe))
        leader, spawner = (await events.wait(Started)).pid, spawner_pid(data)
    for pid in (leader, escaped, spawner):
        await gone(pid)
    async with open_processes(data, events) as processes:
        (exited,) = (await events.wait(Held, count=2)).exited
        assert (exited.signal, exited.stopped) == (signal.SIGTERM, True)
        await processes.stop()


async def test_sigterm_ends_tasks_and_spawner_and_sigint_does_not(data: Path) -> None:
    events = Events()
    async with open_processes(data, events) as processes:
        processes.spawn([shell(data, task(), "exec sleep 1000")])
        await events.wait(Started)
        spawner = spawner_pid(data)
        os.kill(spawner, signal.SIGINT)
        processes.spawn([request(data, task("probe"), "true")])
        await events.wait(Exited, task("probe"))
        os.kill(spawner, signal.SIGTERM)
        exited = await events.wait(Exited, task())
        assert (exited.signal, exited.stopped) == (signal.SIGTERM, True)
        await gone(spawner)
        held = await events.wait(Held, count=2)  # of a new spawner, which has read what the old one left
        assert {event.id for event in held.exited} == {task(), task("probe")}
        await processes.stop()
    assert events.of(SpawnerLost)[0].tasks == ()


async def test_a_killed_spawner_is_replaced_and_what_it_left_behind_is_killed(data: Path) -> None:
    events = Events()
    async with open_processes(data, events) as processes:
        processes.spawn([shell(data, task(), "sleep 1000 & wait"), shell(data, task("x"), "exec sleep 1000")])
        await events.wait(Started, count=2)
        os.kill(spawner_pid(data), signal.SIGKILL)
        lost = await events.wait(SpawnerLost)
        assert set(lost.tasks) == {task(), task("x")}
        held = await events.wait(Held, count=2)
        assert (held.running, held.exited) == ((), ())
        for started in events.of(Started):
            await gone(started.pid)
        processes.spawn([request(data, task(attempt=2), "true")])
        assert (await events.wait(Exited)).id == task(attempt=2)
        await processes.stop()


async def test_runtime_and_spawner_both_killed_leaves_no_orphans(data: Path) -> None:
    pipe = fifo(data / "pipe")
    first = Events()
    async with open_processes(data, first) as processes:
        processes.spawn(
            [shell(data, task(), f"( setsid sh -c 'echo $$ > {pipe}; exec sleep 1000' & ); exec sleep 1000")]
        )
        escaped = int(await read_line(pipe))
        leader, spawner = (await first.wait(Started)).pid, spawner_pid(data)
    os.kill(spawner, signal.SIGKILL)
    await gone(spawner)
    second = Events()
    async with open_processes(data, second) as processes:
        assert await second.wait(Held) == Held((), ())
        await gone(leader)
        await gone(escaped)
        await processes.stop()


async def test_orphans_are_killed_only_when_pid_and_start_agree() -> None:
    now = time.time()
    process = await trio.lowlevel.open_process(["sleep", "1000"], start_new_session=True, env={})
    pid = process.pid
    try:
        assert kill_orphans([(pid, now - 100), (os.getpid(), now), (1 << 22, now)]) == []
        assert kill_orphans([(pid, now)]) == [pid]
    finally:
        process.kill()
        assert await process.wait() == -signal.SIGKILL


def test_a_full_disk_is_told_from_other_faults_also_as_the_cause_of_another_error() -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    named = WattleError("an input cannot be stored")
    named.__cause__ = full
    assert disk_full(full)
    assert disk_full(OSError(errno.EDQUOT, "Disk quota exceeded"))
    assert disk_full(named)
    assert not disk_full(OSError(errno.EACCES, "Permission denied"))
    assert not disk_full(WattleError("no cause"))
