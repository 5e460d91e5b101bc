"""The public shapes: what the API answers and what events carry, as JSON objects.

Field names are those of the stored records (docs/api.md). Times are RFC 3339 in UTC with microseconds, or null. The SDK
parses answers into these same classes, so what a program gets and what travels are one definition.
"""

from __future__ import annotations

from dataclasses import asdict, field
from datetime import UTC, datetime
from typing import Any

from wattle.core.model import NodeInfo
from wattle.values import value

WAITING_SUBMISSION = 16 * 1024
"""Most bytes of a submission that waits for its run's end, for it is kept meanwhile: the 5,000 requests that may wait at a coordinator
(wattle/coordinator/long_polls.py) stay below the 128 MiB that a lane of the bus keeps (wattle/bus/lanes.py), so that others are served."""


def timestamp(seconds: float | None) -> str | None:
    """Seconds since the epoch as RFC 3339 in UTC; None stays None."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def seconds(text: str | None) -> float | None:
    """The inverse of ``timestamp``."""
    return None if text is None else datetime.fromisoformat(text).timestamp()


@value(frozen=True, slots=True, kw_only=True)
class RunView:
    """One execution of a workflow. ``counts`` are its workers by status."""

    id: str
    workflow: str
    status: str
    created_at: str
    started_at: str | None = None
    completed_at: str | None = None
    owner: str
    epoch: int
    counts: dict[str, int] = field(default_factory=dict)
    error_message: str | None = None
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def final(self) -> bool:
        """Whether the run has ended."""
        return self.status in ("succeeded", "failed", "cancelled")

    @property
    def workers(self) -> int:
        """How many workers the run has."""
        return sum(self.counts.values())


@value(frozen=True, slots=True, kw_only=True)
class UsageView:
    """What a task used: CPU seconds, and the peak resident memory of its largest process in bytes."""

    cpu_seconds: float
    memory_peak: int


@value(frozen=True, slots=True, kw_only=True)
class ResultView:
    """One output file of a succeeded worker: path as written in the document, sha256, bytes."""

    path: str
    digest: str
    size: int


@value(frozen=True, slots=True, kw_only=True)
class AttemptView:
    """One attempt of a worker, on one node."""

    attempt: int
    node: str
    status: str
    assigned_at: str
    started_at: str | None = None
    completed_at: str | None = None
    exit_code: int | None = None
    signal: int | None = None
    error_message: str | None = None
    usage: UsageView | None = None


@value(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """One worker of a run: its definition as submitted, where it stands, and every attempt so far.

    ``node`` is where its newest attempt is or was; ``unreachable`` is true while that attempt is open and its node out of sight.
    """

    run: str
    workflow_name: str
    name: str
    status: str
    command: str | None = None
    args: list[str] = field(default_factory=list)
    script: str | None = None
    working_dir: str | None = None
    env_vars: dict[str, str] = field(default_factory=dict)
    inputs: dict[str, str] = field(default_factory=dict)
    outputs: dict[str, str] = field(default_factory=dict)
    needs: list[str] = field(default_factory=list)
    unreachable: bool = False
    node: str | None = None
    error_message: str | None = None
    waiting_for: str | None = None  # of a ready worker: what keeps it from starting
    results: dict[str, ResultView] = field(default_factory=dict)
    attempts: list[AttemptView] = field(default_factory=list)
    created_at: str
    ready_at: str | None = None
    started_at: str | None = None
    completed_at: str | None = None


@value(frozen=True, slots=True, kw_only=True)
class WorkflowView:
    """A stored definition. ``document`` and ``latest_run`` are left out of listings."""

    name: str
    working_dir: str | None = None
    status: str  # the latest run's, or "created" where there was none
    created_at: str
    updated_at: str
    started_at: str | None = None
    completed_at: str | None = None
    workers: int
    document: dict[str, Any] | None = None
    latest_run: RunView | None = None


@value(frozen=True, slots=True, kw_only=True)
class NodeView:
    """A runtime as the network sees it. ``status`` is ready, draining, unreachable or lost; memory and sizes in bytes."""

    name: str
    status: str
    slots: int
    running: int
    queued: int
    resources: dict[str, float] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    confines: list[str] = field(default_factory=list)
    incarnation: str = ""
    version: str = ""


def node_view(info: NodeInfo, status: str) -> NodeView:
    """The public shape of what a runtime says of itself."""
    return NodeView(
        name=info.name,
        status=status,
        slots=info.slots,
        running=info.running,
        queued=info.queued,
        resources=info.resources,
        labels=info.labels,
        confines=list(info.confines),
        incarnation=info.incarnation,
        version=info.version,
    )


@value(frozen=True, slots=True, kw_only=True)
class PeerView:
    """A peer in sight."""

    role: str
    name: str
    incarnation: str


def as_json(view: Any) -> dict[str, Any]:
    """The JSON object of a view."""
    return asdict(view)
