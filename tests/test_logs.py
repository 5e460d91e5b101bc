"""Logs: what an entry looks like, who gets it, and what a process that never asked for logs pays."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import structlog
import trio

from wattle import logs
from wattle.errors import SettingsError
from wattle.logs import bound, configure, get_logger

ROOT = Path(__file__).parents[1]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def _logging_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("NO_COLOR", raising=False)
    root = logging.getLogger()
    level = root.level
    yield
    if logs._handler is not None:
        root.removeHandler(logs._handler)
        logs._handler.close()
        logs._handler = None
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def entries(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_off_a_terminal_an_entry_is_a_json_line_with_the_standard_names_first() -> None:
    stream = io.StringIO()
    configure(stream=stream, role="runtime", peer="lab-1")
    before = datetime.now(UTC)
    get_logger("wattle.probe").info("task started", pid=7, cause="c1", attempt=1, worker="w", run="r")
    (entry,) = entries(stream)
    assert [*entry] == [
        *("timestamp", "level", "event", "logger", "role", "peer", "run", "worker", "attempt", "cause", "pid"),
    ]
    assert entry["timestamp"].endswith("Z")
    assert before <= datetime.fromisoformat(entry.pop("timestamp")) <= datetime.now(UTC)
    assert [*entry.values()] == ["info", "task started", "wattle.probe", "runtime", "lab-1", "r", "w", 1, "c1", 7]


def test_on_a_terminal_an_entry_is_a_line_to_read(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = Terminal()
    configure(stream=stream, peer="lab-1")
    get_logger("wattle.probe").warning("link lost", peer="lab-2")
    assert "\x1b[" in stream.getvalue()

    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    configure(stream=plain, peer="lab-1")
    get_logger("wattle.probe").warning("link lost", peer="lab-2")
    (line,) = plain.getvalue().splitlines()
    assert "\x1b" not in line
    assert all(part in line for part in ("[warning", "link lost", "[wattle.probe]", "peer=lab-2"))


@pytest.mark.parametrize(("format", "is_json"), [("json", True), ("human", False)])
def test_the_format_can_be_forced(format: str, is_json: bool) -> None:
    stream = Terminal() if is_json else io.StringIO()
    configure(format=format, stream=stream)
    get_logger("wattle.probe").info("hello")
    assert stream.getvalue().startswith("{") is is_json


def test_what_others_sent_cannot_steer_the_terminal() -> None:
    stream = io.StringIO()
    configure(format="human", stream=stream)
    get_logger("wattle.probe").info("bad\x1b[2Jevent", problem="a\x1b[2Jb\nforged line")
    assert "\x1b" not in stream.getvalue()
    assert len(stream.getvalue().splitlines()) == 1


@pytest.mark.parametrize("format", ["json", "human"])
def test_exceptions_come_with_their_trace_and_without_local_variables(format: str) -> None:
    stream = io.StringIO()
    configure(format=format, stream=stream)
    password = "".join(["hun", "ter2"])
    try:
        raise ExceptionGroup("both", [ValueError("first"), OSError(len(password))])
    except ExceptionGroup as error:
        get_logger("wattle.probe").exception("loop failed", run="r")
        get_logger("wattle.probe").warning("went on", exc_info=error)
    text = stream.getvalue()
    for said in ("loop failed", "went on", "Traceback (most recent call last)", "ValueError: first", "OSError: 7"):
        assert said in text
    assert text.count("ValueError: first") == 2
    assert password not in text
    if format == "json":
        assert ["exception" in entry for entry in entries(stream)] == [True, True]


def test_entries_below_the_level_are_dropped_and_libraries_do_not_flood_debug() -> None:
    stream = io.StringIO()
    configure("warning", stream=stream)
    get_logger("wattle.probe").info("no")
    get_logger("wattle.probe").warning("yes")
    configure("debug", stream=stream)
    get_logger("wattle.probe").debug("now")
    logging.getLogger("peewee").debug("SELECT 1")
    logging.getLogger("peewee").info("of peewee")
    assert [entry["event"] for entry in entries(stream)] == ["yes", "now", "of peewee"]


def test_records_of_libraries_and_warnings_come_out_alike() -> None:
    stream = io.StringIO()
    configure(stream=stream, role="gateway")
    logging.getLogger("zenoh.handlers").error("callback %s", "failed")
    structlog.get_logger("mine").warning("of %s", "structlog", run="r")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.warn("old thing", stacklevel=1)
    of_zenoh, of_structlog, of_python = entries(stream)
    assert (of_zenoh["event"], of_zenoh["logger"], of_zenoh["role"]) == ("callback failed", "zenoh.handlers", "gateway")
    assert (of_structlog["event"], of_structlog["run"], of_structlog["role"]) == ("of structlog", "r", "gateway")
    assert "old thing" in of_python["event"]
    assert {entry["level"] for entry in (of_structlog, of_python)} == {"warning"}


def test_a_value_cannot_pass_for_a_part_of_the_entry() -> None:
    stream = io.StringIO()
    configure(stream=stream)
    get_logger("wattle.probe").info("hello", level="fatal", logger="x", timestamp=0)
    (entry,) = entries(stream)
    assert (entry["level"], entry["logger"], entry["level_"], entry["timestamp_"]) == (
        "info",
        "wattle.probe",
        "fatal",
        0,
    )


def test_values_of_any_kind_can_be_logged() -> None:
    stream = io.StringIO()
    configure(stream=stream)
    get_logger("wattle.probe").info("100% %s", path=Path("/x"), raw=b"\xff", name="\udcff", group={1: {2}})
    (entry,) = entries(stream)
    assert (entry["event"], entry["path"], entry["name"]) == ("100% %s", "/x", "\udcff")


def test_a_bound_logger_and_the_nearest_value_wins() -> None:
    stream = io.StringIO()
    configure(stream=stream, peer="process")
    log = get_logger("wattle.probe").bind(run="r1", peer="logger")
    with bound(peer="context", role="runtime"):
        log.info("one")
        get_logger("wattle.probe").info("two")
        log.bind(run="r2").info("three", peer="call")
    get_logger("wattle.probe").info("four")
    said = [(entry["event"], entry["peer"], entry.get("run"), entry.get("role")) for entry in entries(stream)]
    assert said == [
        ("one", "logger", "r1", "runtime"),
        ("two", "context", None, "runtime"),
        ("three", "call", "r2", "runtime"),
        ("four", "process", None, None),
    ]


async def test_several_agents_in_one_process_log_under_their_own_names() -> None:
    stream = io.StringIO()
    configure(stream=stream)
    log = get_logger("wattle.probe")

    async def part() -> None:
        log.info("hello")

    async def agent(role: str) -> None:
        with bound(role=role):
            await trio.lowlevel.checkpoint()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(part)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(agent, "coordinator")
        nursery.start_soon(agent, "runtime")
    assert sorted(entry["role"] for entry in entries(stream)) == ["coordinator", "runtime"]


def test_a_second_configure_replaces_the_first() -> None:
    first, second = io.StringIO(), io.StringIO()
    configure(stream=first)
    configure(stream=second)
    get_logger("wattle.probe").info("hello")
    assert (first.getvalue(), len(entries(second))) == ("", 1)


def test_a_log_file_is_appended_to_and_may_be_moved_away(tmp_path: Path) -> None:
    path = tmp_path / "new/wattle.log"
    log = get_logger("wattle.probe")
    configure(file=path)
    log.info("one")
    configure(file=path)
    log.info("two", name="\udcff")
    path.rename(tmp_path / "old.log")
    log.info("three")
    assert [json.loads(line)["event"] for line in (tmp_path / "old.log").read_text().splitlines()] == ["one", "two"]
    assert [json.loads(line)["event"] for line in path.read_text().splitlines()] == ["three"]


def test_a_log_file_that_cannot_be_opened(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(
        SettingsError, match=r"log file .*/file/wattle.log cannot be opened: .*; choose another --log-file"
    ):
        configure(file=tmp_path / "file/wattle.log")
    with pytest.raises(SettingsError, match="Is a directory"):
        configure(file=tmp_path)


@pytest.mark.parametrize("given", [{"level": "loud"}, {"format": "xml"}])
def test_an_unknown_level_or_format(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="no such log level or format"):
        configure(**given)


def python(code: str, *, redirect: str = "") -> subprocess.CompletedProcess[str]:
    shell = f'exec "$0" -c "$1" {redirect}'
    return subprocess.run(
        ["sh", "-c", shell, sys.executable, code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )


def test_without_configure_warnings_are_plain_lines_on_stderr_and_structlog_is_not_imported() -> None:
    done = python(
        "import sys; from wattle.logs import get_logger; log = get_logger('wattle.probe').bind(run='r');"
        "log.info('quiet'); log.warning('loud %s', peer='p');"
        "print('structlog' in sys.modules, 'trio' in sys.modules, 'asyncio' in sys.modules)"
    )
    assert done.stdout == "False False False\n"
    assert done.stderr == "loud %s run='r' peer='p'\n"


def test_json_needs_no_structlog_and_people_s_lines_do() -> None:
    done = python(
        "import io, sys; from wattle.logs import configure, get_logger; out = io.StringIO(); configure(stream=out);"
        "error = ZeroDivisionError('by nothing'); get_logger('wattle.probe').error('failed', run='r', exc_info=error);"
        "print(out.getvalue(), 'structlog' in sys.modules); configure(format='human'); print('structlog' in sys.modules)"
    )
    line, without, people = done.stdout.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["run"], entry["exception"]) == ("failed", "r", "ZeroDivisionError: by nothing")
    assert (without.strip(), people) == ("False", "True")


def test_a_process_without_stderr_can_still_log() -> None:
    code = "from wattle.logs import *; configure(); get_logger('x').error('lost'); print('alive')"
    assert python(code, redirect="2>&-").stdout == "alive\n"
