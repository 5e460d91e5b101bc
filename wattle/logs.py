"""Logs: lines for people on a terminal, one JSON object per line everywhere else; times in UTC.

Every module may say ``log = get_logger("wattle.feeds")`` for free, and then ``log.info("feed caught up", peer=..., run=...)``: an
event in plain words, and values by name. ``run``, ``worker``, ``attempt`` and ``cause`` (the id that runs from an event through
messages to what came of it) are the standard names; ``role`` and ``peer`` are bound once.

A process that never calls ``configure``, such as the command line, shows warnings and errors as plain lines on stderr. Only lines for
people are made by structlog, which takes 0.2 s to import (it brings rich and asyncio along): where nobody reads along it is left alone.

Messages travel through the standard library's logging, so records of zenoh, peewee and Python's own warnings come out alike, and
programs that use the SDK handle Wattle's with what they know.
"""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TextIO

from wattle.errors import SettingsError

if TYPE_CHECKING:
    from logging.handlers import WatchedFileHandler

LEVELS = ("debug", "info", "warning", "error")
FORMATS = ("auto", "human", "json")

_FIRST = ("role", "peer", "run", "worker", "attempt", "cause")  # the standard names come first, in this order
_OWN = frozenset({"timestamp", "level", "event", "logger", "exception", "exc_info", "stack_info", "stack"})
_CHATTY = ("peewee", "asyncio")  # at debug they tell of every statement

_context: ContextVar[Mapping[str, object]] = ContextVar("wattle_logs", default=MappingProxyType({}))
_handler: logging.Handler | None = None


class _Event:
    """What a log call says, kept apart for the formatter; as text for whoever else handles the record."""

    __slots__ = ("text", "values")

    def __init__(self, text: str, values: Mapping[str, object]) -> None:
        self.text, self.values = text, values

    def __str__(self) -> str:
        return " ".join([self.text, *(f"{name}={value!r}" for name, value in self.values.items())])


class Logger:
    """Says events with values. ``exc_info=error`` among the values adds that exception's trace."""

    __slots__ = ("_bound", "_log")

    def __init__(self, log: logging.Logger, bound: Mapping[str, object]) -> None:
        self._log, self._bound = log, bound

    def bind(self, **values: object) -> Logger:
        """A logger that adds ``values`` to everything it says."""
        return Logger(self._log, {**self._bound, **values})

    def debug(self, event: str, **values: Any) -> None:
        """For whoever looks for a fault."""
        self._say(logging.DEBUG, event, values)

    def info(self, event: str, **values: Any) -> None:
        """What an operator wants to know of a good day."""
        self._say(logging.INFO, event, values)

    def warning(self, event: str, **values: Any) -> None:
        """Something is not as it should be, and was dealt with."""
        self._say(logging.WARNING, event, values)

    def error(self, event: str, **values: Any) -> None:
        """Something failed that somebody should see to."""
        self._say(logging.ERROR, event, values)

    def exception(self, event: str, **values: Any) -> None:
        """An error, with the trace of the exception that is being handled."""
        self._say(logging.ERROR, event, {"exc_info": True, **values})

    def _say(self, level: int, event: str, values: dict[str, Any]) -> None:
        if self._log.isEnabledFor(level):
            exc_info = values.pop("exc_info", None)
            self._log.log(level, _Event(event, {**self._bound, **values}), exc_info=exc_info)


def get_logger(name: str) -> Logger:
    """A logger; ``name`` starts with ``wattle.`` for Wattle's own. Costs nothing before ``configure``."""
    return Logger(logging.getLogger(name), {})


@contextmanager
def bound(**values: object) -> Iterator[None]:
    """Add ``values`` to everything logged within, also by the trio tasks started within: for several agents in one process."""
    token = _context.set({**_context.get(), **values})
    try:
        yield
    finally:
        _context.reset(token)


def configure(
    level: str = "info",
    format: str = "auto",
    *,
    stream: TextIO | None = None,
    file: Path | None = None,
    **values: object,
) -> None:
    """Log to ``file``, else to ``stream``, else to stderr, from ``level`` on, with ``values`` in every entry.

    ``level`` is one of LEVELS, ``format`` one of FORMATS: auto is human on a terminal, json elsewhere. A second call replaces what the
    first one set up. Where structlog is imported already, what is said through it comes out of the same handler. Raises SettingsError when
    the file cannot be opened.
    """
    global _handler
    if level not in LEVELS or format not in FORMATS:
        raise ValueError(f"no such log level or format: {level!r}, {format!r}")
    target = stream or sys.stderr or open(os.devnull, "w")  # noqa: SIM115 - stderr is None when started with 2>&-
    handler = logging.StreamHandler(target) if file is None else _open(file)
    terminal = file is None and target.isatty()
    human = format == "human" or (format == "auto" and terminal)
    colors = terminal and not os.environ.get("NO_COLOR")
    handler.setFormatter(_human_formatter(colors, values) if human else _JsonFormatter(values))

    root = logging.getLogger()
    if _handler is not None:
        root.removeHandler(_handler)
        _handler.close()
    root.addHandler(handler)
    _handler = handler
    number = logging.getLevelNamesMapping()[level.upper()]
    root.setLevel(number)
    for name in _CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.INFO))
    logging.captureWarnings(True)
    if "structlog" in sys.modules:
        _configure_structlog()


def _configure_structlog() -> None:
    """For agents of users that say ``structlog.get_logger()``: their events come out of the same handler."""
    import structlog

    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _open(file: Path) -> WatchedFileHandler:
    from logging.handlers import WatchedFileHandler  # late: it takes socket, queue and more along

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return WatchedFileHandler(file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise SettingsError(
            f"log file {file} cannot be opened: {error.strerror or error}; choose another --log-file"
        ) from None


def _human_formatter(colors: bool, bound: Mapping[str, object]) -> logging.Formatter:
    import structlog

    def entry(_: object, __: str, given: Any) -> dict[str, Any]:
        record = given.pop("_record")
        given.pop("_from_structlog")
        return _entry(record, given, bound)

    plain = structlog.dev.plain_traceback  # the rich one would print the values of local variables
    renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=plain, sort_keys=False)
    processors: list[Any] = [entry, _printable, renderer]
    return structlog.stdlib.ProcessorFormatter(processors=processors)


_written = json.JSONEncoder(default=str).encode  # made once: json.dumps would make one for each line


class _JsonFormatter(logging.Formatter):
    """One JSON object per record, with ``bound`` in it."""

    def __init__(self, bound: Mapping[str, object]) -> None:
        super().__init__()
        self._bound = bound

    def format(self, record: logging.LogRecord) -> str:
        """The entry as a line."""
        if isinstance(record.msg, dict) and hasattr(record, "_logger"):  # a structlog logger's
            given = dict(record.msg)
        else:
            given = {"event": record.getMessage(), "exc_info": record.exc_info, "stack_info": record.stack_info}
            given = {name: value for name, value in given.items() if value}
        entry = _entry(record, given, self._bound)
        error = _exception(entry.pop("exc_info", None))
        if error is not None:
            entry["exception"] = self.formatException(error)
        return _written(entry)


def _exception(given: Any) -> Any:
    """What ``exc_info`` may be (an exception, True, or what sys.exc_info() gives) as the last of these; None where there is none."""
    if isinstance(given, BaseException):
        return type(given), given, given.__traceback__
    found = given if isinstance(given, tuple) else sys.exc_info() if given else (None,)
    return None if found[0] is None else found


def _entry(record: logging.LogRecord, given: dict[str, Any], bound: Mapping[str, object]) -> dict[str, Any]:
    """One entry from a record, whoever made it: Wattle, a plain logging call, or a structlog logger."""
    event, exc_info = given.pop("event", ""), given.pop("exc_info", None)
    values = {**bound, **_context.get(), **given}
    if isinstance(record.msg, _Event):
        event = record.msg.text
        values |= record.msg.values
    entry: dict[str, Any] = {
        "timestamp": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds")[:-6] + "Z",
        "level": record.levelname.lower(),
        "event": event,
        "logger": record.name,
    }
    entry |= {name: values.pop(name) for name in _FIRST if name in values}
    entry |= {f"{name}_" if name in _OWN else name: value for name, value in values.items()}
    return entry if not exc_info else entry | {"exc_info": exc_info}


def _printable(_: object, __: str, entry: dict[str, Any]) -> dict[str, Any]:
    """Quote texts with control characters: what others sent must not steer the reader's terminal."""
    return {
        name: repr(value) if isinstance(value, str) and not value.isprintable() else value
        for name, value in entry.items()
    }
