"""The settings of agents, one class per role, on pydantic.

``RuntimeSettings()`` reads ``WATTLE_*`` variables over the defaults; ``load_settings`` adds the file and the flags.
Descriptions, bounds and defaults here are the only place where they stand: docs/settings.md and config/ are made of them.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from wattle.settings.base import Problem, Rejected
from wattle.settings.client import ClientSettings
from wattle.settings.values import (
    as_endpoints,
    as_file,
    as_list,
    as_named,
    as_pairs,
    as_path,
    as_public_keys,
    default_data,
    default_name,
    socket_endpoint,
    socket_problem,
    variables,
)


def _lower(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _number(value: object) -> object:
    if isinstance(value, bool):  # which pydantic would take for 0 or 1
        raise ValueError("should be a number")  # noqa: TRY004 - pydantic reports ValueError alone
    return value


def _amount(value: object) -> object:
    """Texts such as ``8GiB`` as the number of bytes they stand for."""
    if isinstance(value, str) and value.strip()[-1:].isalpha() and value.strip()[:1].isdigit():
        return int(TypeAdapter(ByteSize).validate_python(value.strip()))
    return _number(value)


Name = Annotated[str, BeforeValidator(as_named)]
AbsolutePath = Annotated[Path, BeforeValidator(as_path)]
ExistingFile = Annotated[Path, BeforeValidator(as_file)]
Endpoints = Annotated[tuple[str, ...], BeforeValidator(as_endpoints)]
Seconds = Annotated[float, BeforeValidator(_number), Field(allow_inf_nan=False, le=366 * 86400)]
Count = Annotated[int, BeforeValidator(_number)]
Amount = Annotated[float, BeforeValidator(_amount), Field(ge=0, le=1e18, allow_inf_nan=False)]


def _limit_names(limits: dict[str, float]) -> dict[str, float]:
    for name in limits:
        if name not in LIMITS:
            raise ValueError(f"names {name!r}, which is no limit; there are: {', '.join(LIMITS)}")
    return limits


LIMITS = ("memory", "cpu", "processes", "open_files", "file_size", "disk", "time")
Limits = Annotated[dict[str, Amount], BeforeValidator(as_pairs), AfterValidator(_limit_names)]
Folders = Annotated[tuple[AbsolutePath, ...], BeforeValidator(as_list)]


class AgentSettings(BaseModel):
    """What every agent needs to know. Frozen; all paths are absolute."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, defer_build=True)
    role: ClassVar[str] = "agent"

    data: AbsolutePath = Field(
        default_factory=default_data,
        description="Folder for the store, logs, files and the socket. One process at a time uses it.",
        json_schema_extra={"derived": "$XDG_DATA_HOME/wattle, or ~/.local/share/wattle"},
    )
    name: str = Field(
        "",
        validate_default=True,
        description="This peer's name. Letters, digits, '.', '_' and '-'; two peers of a network must not share one.",
        json_schema_extra={
            "derived": "the host's name; where data is not the default folder, '-' and 4 hex digits that stand for the folder"
        },
    )
    namespace: Name = Field("default", description="Peers see each other only within a namespace.")
    mode: Literal["peer", "client", "router"] = Field(
        "peer",
        description="What this agent is to Zenoh: peer, client (of the peer or router it connects to) or router.",
    )
    listen: Endpoints = Field(
        (),
        description="Zenoh endpoints to listen on. Empty: the socket wattle.sock in the data folder and nowhere else. "
        "Others than sockets need a bundle, or insecure.",
    )
    connect: Endpoints = Field((), description="Zenoh endpoints of peers or routers to connect to, and to keep trying.")
    multicast: bool = Field(False, description="Find peers on the local network by multicast, and be found.")
    bundle: ExistingFile | None = Field(
        None,
        description="A member's bundle of a secured cluster (wattle cluster issue): its key, whom to connect to and where to listen. "
        "Name and namespace are the certificate's.",
        json_schema_extra={"derived": "none"},
    )
    insecure: bool = Field(
        False,
        description="Use endpoints that reach other machines, or this one's other users, without certificates: whoever reaches "
        "them can run commands here.",
    )
    zenoh_config: ExistingFile | None = Field(
        None,
        description="A Zenoh configuration file (JSON5) to start from, for TLS and access control. What it says of mode, "
        "listen, multicast and lease holds unless the same is given here.",
        json_schema_extra={"derived": "none"},
    )
    lease: Seconds = Field(
        2.0,
        ge=0.1,
        le=3600,
        description="Seconds of silence after which a link counts as dead. Short ones notice a cut sooner and raise false alarms "
        "on lossy networks.",
    )
    synchronous: Literal["normal", "full"] = Field(
        "normal",
        description="What a commit survives: normal, a kill of the process; full, a power cut as well, at the price of a disk "
        "flush per commit.",
    )
    log_level: Annotated[Literal["debug", "info", "warning", "error"], BeforeValidator(_lower)] = Field(
        "info", description="The least level to log: debug, info, warning or error."
    )
    log_format: Annotated[Literal["auto", "human", "json"], BeforeValidator(_lower)] = Field(
        "auto",
        description="human (lines to read), json (one object per line), or auto: human on a terminal, else json.",
    )
    log_file: AbsolutePath | None = Field(
        None,
        description="File to append logs to; it may be moved away (rotated) at any time.",
        json_schema_extra={"derived": "none, logs go to stderr"},
    )

    def __init__(self, **given: Any) -> None:
        """Of the given values and, where those say nothing, of ``WATTLE_*`` variables; raises pydantic's ValidationError."""
        read = {name: text for name, text in variables().items() if name in type(self).model_fields}
        super().__init__(**(read | given))

    @field_validator("name")
    @classmethod
    def _named(cls, value: str, info: ValidationInfo) -> str:
        if value:
            return as_named(value)
        data = info.data.get("data")  # absent when it is wrong itself, which is reported already
        return default_name(data) if isinstance(data, Path) else "unnamed"

    @model_validator(mode="after")
    def _reachable(self) -> Self:
        elsewhere = self.listen or self.zenoh_config or self.bundle or self.mode == "client"
        problem = None if elsewhere else socket_problem(self.data)
        if problem is not None:
            raise PydanticCustomError("socket", "{problem}", {"problem": problem, "field": "data"})
        if self.mode == "client" and not (self.connect or self.multicast or self.zenoh_config or self.bundle):
            text = "needs something to be a client of: give --connect"
            raise PydanticCustomError("client", "{problem}", {"problem": text, "field": "mode"})
        return self

    @property
    def endpoints(self) -> tuple[str, ...]:
        """Where to listen: what ``listen`` says, else the socket in the data folder; for a client, or with a ``zenoh_config`` that
        says itself where, what ``listen`` says alone.
        """
        if self.listen or self.zenoh_config or self.mode == "client":
            return self.listen
        return (socket_endpoint(self.data),)

    @classmethod
    def setting_names(cls) -> frozenset[str]:
        """The names of all its settings."""
        return frozenset(cls.model_fields)

    @classmethod
    def build(cls, given: Mapping[str, Any]) -> Self:
        """Settings of the given values and, where those say nothing, of ``WATTLE_*`` variables; raises Rejected."""
        try:
            return cls(**given)
        except ValidationError as error:
            raise Rejected([_problem(cls, details) for details in error.errors(include_url=False)]) from None


class CoordinatorSettings(AgentSettings):
    """What a coordinator decides by."""

    role: ClassVar[str] = "coordinator"

    lost_after: Seconds = Field(
        30.0, gt=0, description="Seconds until the tasks of a node that is out of sight are given to others."
    )
    adopt_after: Seconds = Field(
        1.0, gt=0, description="Seconds until the runs of another coordinator that is out of sight are taken over."
    )
    replicas: Count = Field(
        2,
        ge=0,
        le=100,
        description="Other stores that have a submission before it is acknowledged, where as many are in sight; also how many "
        "runtimes keep copies. 0 acknowledges at once.",
    )
    quorum: Count = Field(
        0,
        ge=0,
        le=100_000,
        description="Coordinators and runtimes in sight, this one included, without which nothing is assigned, acknowledged or taken "
        "over; as many have what is acknowledged. More than half of all, or 0, which goes on however few they are.",
    )
    command_timeout: Seconds = Field(
        5.0, gt=0, description="Seconds to wait for a runtime's answer to a command before it is sent again."
    )
    prefetch_window: Seconds = Field(
        0.25, ge=0, description="Seconds of short tasks that are sent to a node ahead of its free slots; 0 sends none."
    )
    max_runs: Count = Field(
        10_000, ge=1, le=10_000_000, description="Unfinished runs at a time; a submission beyond is answered BUSY."
    )
    retention: Seconds = Field(
        30 * 86400.0,
        ge=0,
        description="Seconds that a run is kept after its end, with its logs and private folders on all nodes; 0 keeps it until it is "
        "pruned by hand.",
    )
    max_losses: Count = Field(
        10,
        ge=0,
        le=1_000_000,
        description="Attempts of one worker whose nodes vanished, or had no room on their disks, before the worker is taken for the "
        "cause, and fails.",
    )
    max_reproduced: Count = Field(
        3,
        ge=0,
        le=1_000_000,
        description="Times a succeeded worker runs again because every copy of its files is out of reach.",
    )


class RuntimeSettings(AgentSettings):
    """What a runtime offers, and how it treats its tasks."""

    role: ClassVar[str] = "runtime"

    slots: Count = Field(
        default_factory=lambda: len(os.sched_getaffinity(0)),
        ge=1,
        le=100_000,
        description="Tasks at a time.",
        json_schema_extra={"derived": "the number of CPUs this process may use"},
    )
    resources: Annotated[dict[Name, Amount], BeforeValidator(as_pairs)] = Field(
        {},
        description="What tasks share here, over what is found: cpus, memory (bytes, or texts such as 8GiB), gpus and your own, "
        "such as licenses=2.",
    )
    labels: Annotated[dict[Name, str], BeforeValidator(as_pairs)] = Field(
        {}, description="What this node is, for workers that ask for it, such as zone=lab."
    )
    secrets_file: AbsolutePath | None = Field(
        None,
        description="TOML file with secrets of this node, for workers that ask for them; it must be yours or root's, and nobody else's "
        "to read.",
        json_schema_extra={"derived": "none"},
    )
    stop_timeout: Seconds = Field(10.0, ge=0, description="Seconds that running tasks get to end at SIGTERM.")
    queue_patience: Seconds = Field(
        2.0, ge=0, description="Seconds a task waits here for room before it is handed back to the coordinator."
    )
    min_sandbox: Literal["none", "standard", "strict"] = Field(
        "none", description="The sandbox that every task has here at least: none, standard or strict."
    )
    default_limits: Limits = Field(
        {}, description="Limits of workers that give none: memory, cpu, processes, open_files, file_size, disk, time."
    )
    max_limits: Limits = Field(
        {}, description="Limits that no worker may ask to exceed; those of workers that give none and have no default."
    )
    task_users: Annotated[tuple[str, ...], BeforeValidator(as_list)] = Field(
        (),
        description="Users that workers may name in run_as, where the runtime is root's. The first also runs the workers that name none.",
    )
    sandbox_readable: Folders = Field(
        (), description="Folders that a strict sandbox shows besides the system's, to read."
    )
    sandbox_writable: Folders = Field(
        (),
        description="Folders in which workers may have their working_dir where min_sandbox demands a sandbox. Empty: none, they use "
        "private folders.",
    )
    die_with_runtime: bool = Field(
        False,
        description="Kill the tasks when the runtime's process dies, instead of having it find them again at restart.",
    )


class GatewaySettings(AgentSettings):
    """How much a gateway takes on."""

    role: ClassVar[str] = "gateway"

    max_payload: Annotated[ByteSize, BeforeValidator(_number)] = Field(
        ByteSize(64 * 2**20),
        ge=1024,
        le=2**30,
        description="Bytes of a request's payload, at most (or a text such as 64MiB).",
    )
    max_wait: Seconds = Field(3600.0, ge=0, description="Seconds that a request may ask to wait (?wait=), at most.")
    max_waiting: Count = Field(
        10_000, ge=1, le=1_000_000, description="Requests that wait at a time; one beyond is answered BUSY."
    )
    token_public_key: Annotated[Path | str, BeforeValidator(as_public_keys)] | None = Field(
        None,
        description="File with the public keys (PEM, Ed25519) that tokens are checked with, or the keys themselves. With it every request "
        "needs a token; without, whoever reaches this gateway may do everything.",
        json_schema_extra={"derived": "the cluster's, from the bundle, where the cluster has tokens; else none"},
    )
    cluster_id: Name | None = Field(
        None,
        description="The cluster's id: tokens for another are refused.",
        json_schema_extra={
            "derived": "the cluster's, from the bundle; else the fingerprint of the first key in token_public_key"
        },
    )
    audit: bool | None = Field(
        None,
        description="Record every request that changes something, in audit.db in the data folder.",
        json_schema_extra={"derived": "true where tokens are checked"},
    )
    audit_most: Count = Field(
        1_000_000,
        ge=2_000,
        le=1_000_000_000,
        description="Records that are kept (about 400 bytes each); beyond, the oldest thousand are removed.",
    )

    @property
    def audited(self) -> bool:
        """Whether requests that change something are recorded."""
        return self.token_public_key is not None if self.audit is None else self.audit


class RouterSettings(AgentSettings):
    """A Zenoh router: joins networks that do not reach each other, and runs nothing."""

    role: ClassVar[str] = "router"

    mode: Literal["peer", "client", "router"] = Field("router", description="What this agent is to Zenoh: a router.")


AGENTS: dict[str, type[AgentSettings]] = {
    kind.role: kind for kind in (CoordinatorSettings, RuntimeSettings, GatewaySettings, RouterSettings)
}
"""The settings of each built-in agent by its role, which is also the name of its table in a file."""

KINDS: dict[str, type[AgentSettings] | type[ClientSettings]] = {**AGENTS, ClientSettings.role: ClientSettings}
"""The same with the client's."""

SHARED = AgentSettings.setting_names()
"""Keys that may stand at the top level of a file."""


def _problem(kind: type[AgentSettings], details: ErrorDetails) -> Problem:
    loc, text = details["loc"], details["msg"]
    if not loc:  # a rule over several fields; it says which one to change
        context = details.get("ctx", {})
        return Problem(str(context.get("field", "")), None, text)
    if details["type"] == "extra_forbidden":
        return Problem(str(loc[0]), details["input"], f"is not a setting of the {kind.role}")
    text = text.removeprefix("Value error, ").replace("Input should", "should", 1)
    within = "".join(f"[{part}]" for part in loc[1:] if part != "[key]")
    return Problem(f"{loc[0]}{within}", details["input"], text)
