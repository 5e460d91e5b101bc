"""The transition tables, each one grid on one screen: rows are states, columns are events.

A cell is the next state, or LATE (the event comes after its time, or twice: nothing changes), or NEVER (cannot happen unless Wattle has a
fault: raises IllegalTransition with the story so far). Every pair is in its grid, so nothing is left to chance.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum, StrEnum
from typing import Final, Literal, TypeVar, Union

from wattle.core.model import TaskStatus, WorkerStatus

S = TypeVar("S", bound=StrEnum)
E = TypeVar("E", bound=StrEnum)


class _Mark(Enum):
    NEVER = "never"


LATE: Final = None
NEVER: Final = _Mark.NEVER

Cell = Union[S, Literal[_Mark.NEVER], None]  # noqa: UP007  # a generic alias: mypy reads the X | Y form as a value here
Table = Mapping[S, Mapping[E, Cell[S]]]


class IllegalTransition(AssertionError):
    """An event met a state in which it cannot happen. The message tells what the thing went through before."""

    def __init__(self, what: str, state: str, event: str, story: Sequence[str] = ()) -> None:
        lines = [f"{what}: event '{event}' in state '{state}'", *story]
        super().__init__("\n  ".join(lines))


def next_state(table: Table[S, E], state: S, event: E, story: Callable[[], Sequence[str]]) -> S | None:
    """The state after ``event``, or None when the event is late and changes nothing.

    Raises IllegalTransition with ``story()``: first what it happened to, then what that went through. It is told only then.
    """
    cell = table[state][event]
    if cell is _Mark.NEVER:
        what, *past = story()
        raise IllegalTransition(what, state, event, past)
    return cell


def _grid(events: Sequence[E], rows: Mapping[S, Sequence[Cell[S]]]) -> Table[S, E]:
    return {state: dict(zip(events, cells, strict=True)) for state, cells in rows.items()}


# --- a worker of a run, as its coordinator sees it ----------------------------------------------------------------


class WorkerEvent(StrEnum):
    """What can happen to a worker."""

    MET = "met"  # all it depends on has succeeded
    STARTED = "started"  # an attempt runs
    SUCCEEDED = "succeeded"
    AGAIN = "again"  # an attempt ended without a result and there will be another
    FAILED = "failed"  # an attempt failed and there will be no other
    CANCELLED = "cancelled"
    SKIPPED = "skipped"
    INPUT_LOST = "input_lost"  # what it reads has to be produced again first
    FILES_LOST = "files_lost"  # no node has its output files any more
    REOPENED = "reopened"  # the user retries the run


_C, _R, _X = WorkerStatus.CREATED, WorkerStatus.READY, WorkerStatus.RUNNING
_OK, _BAD, _NO, _SK = WorkerStatus.SUCCEEDED, WorkerStatus.FAILED, WorkerStatus.CANCELLED, WorkerStatus.SKIPPED

# fmt: off
WORKER_TABLE: Table[WorkerStatus, WorkerEvent] = _grid(list(WorkerEvent), {
    #                  met    started succeeded again  failed cancelled skipped input_lost files_lost reopened
    _C:               (_R,    LATE,   _OK,      LATE,  _BAD,  _NO,      _SK,    LATE,      NEVER,     NEVER),
    _R:               (NEVER, _X,     _OK,      _R,    _BAD,  _NO,      _SK,    _C,        NEVER,     NEVER),
    _X:               (NEVER, LATE,   _OK,      _R,    _BAD,  _NO,      _SK,    _C,        NEVER,     NEVER),
    _OK:              (NEVER, LATE,   LATE,     LATE,  LATE,  LATE,     LATE,   LATE,      _C,        LATE),
    _BAD:             (NEVER, LATE,   LATE,     LATE,  LATE,  LATE,     LATE,   LATE,      NEVER,     _C),
    _NO:              (NEVER, LATE,   LATE,     LATE,  LATE,  LATE,     LATE,   LATE,      NEVER,     _C),
    _SK:              (NEVER, LATE,   LATE,     LATE,  LATE,  LATE,     LATE,   LATE,      NEVER,     _C),
})
# fmt: on


# --- one attempt, as the coordinator records it ---------------------------------------------------------------------


class TaskEvent(StrEnum):
    """What a coordinator can learn of an attempt. The last five are how it ended."""

    ACCEPTED = "accepted"
    STARTED = "started"
    FOUND = "found"  # given up as lost, and seen alive again on its returned node
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    RETURNED = "returned"
    LOST = "lost"
    SUPERSEDED = "superseded"  # ended after another attempt's finish was recorded


_AS, _AC, _RU = TaskStatus.ASSIGNED, TaskStatus.ACCEPTED, TaskStatus.RUNNING
_S, _F, _K, _B = TaskStatus.SUCCEEDED, TaskStatus.FAILED, TaskStatus.CANCELLED, TaskStatus.RETURNED
_L, _SU = TaskStatus.LOST, TaskStatus.SUPERSEDED

# fmt: off
TASK_TABLE: Table[TaskStatus, TaskEvent] = _grid(list(TaskEvent), {
    #            accepted started found  succeeded failed cancelled returned lost  superseded
    _AS:        (_AC,     _RU,    LATE,  _S,       _F,    _K,       _B,      _L,   _SU),
    _AC:        (LATE,    _RU,    LATE,  _S,       _F,    _K,       _B,      _L,   _SU),
    _RU:        (LATE,    LATE,   LATE,  _S,       _F,    _K,       _B,      _L,   _SU),
    _L:         (LATE,    LATE,   _RU,   _S,       _F,    _K,       _B,      LATE, _SU),
    _S:         (LATE,    LATE,   LATE,  LATE,     LATE,  LATE,     LATE,    LATE, LATE),
    _F:         (LATE,    LATE,   LATE,  LATE,     LATE,  LATE,     LATE,    LATE, LATE),
    _K:         (LATE,    LATE,   LATE,  LATE,     LATE,  LATE,     LATE,    LATE, LATE),
    _B:         (LATE,    LATE,   LATE,  LATE,     LATE,  LATE,     LATE,    LATE, LATE),
    _SU:        (LATE,    LATE,   LATE,  LATE,     LATE,  LATE,     LATE,    LATE, LATE),
})
# fmt: on


# --- one task, as the runtime that executes it sees it -----------------------------------------------------------------


class Phase(StrEnum):
    """Where a task stands on its runtime."""

    QUEUED = "queued"  # stored; waits for room
    PREPARING = "preparing"  # its inputs are being fetched
    STARTING = "starting"  # handed to the spawner
    RUNNING = "running"
    COLLECTING = "collecting"  # its command succeeded; its outputs are being hashed
    DONE = "done"


class PhaseEvent(StrEnum):
    """What can happen to a task on its runtime."""

    PREPARE = "prepare"  # there is room, and inputs to fetch
    SPAWN = "spawn"  # there is room, and everything it needs is in place
    STARTED = "started"
    COLLECT = "collect"  # exited with status 0 and has outputs to hash
    END = "end"  # finished, in whatever way


_Q, _P, _ST, _RN, _CO, _D = Phase.QUEUED, Phase.PREPARING, Phase.STARTING, Phase.RUNNING, Phase.COLLECTING, Phase.DONE

# fmt: off
PHASE_TABLE: Table[Phase, PhaseEvent] = _grid(list(PhaseEvent), {
    #      prepare spawn  started collect end
    _Q:   (_P,     _ST,   NEVER,  NEVER,  _D),
    _P:   (NEVER,  _ST,   NEVER,  NEVER,  _D),
    _ST:  (NEVER,  NEVER, _RN,    _CO,    _D),
    _RN:  (NEVER,  NEVER, LATE,   _CO,    _D),
    _CO:  (NEVER,  NEVER, LATE,   LATE,   _D),
    _D:   (NEVER,  NEVER, LATE,   LATE,   LATE),
})
# fmt: on
