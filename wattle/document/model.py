"""The workflow document as people write it: every key, its type, bounds and meaning. docs/document.md is the same for readers.

These classes check each value by itself; wattle/document/check.py checks how values fit together. Unknown keys are errors.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any, Literal, NoReturn

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    FailFast,
    Field,
    PlainValidator,
    StringConstraints,
    WithJsonSchema,
)
from pydantic.json_schema import GenerateJsonSchema
from pydantic_core import PydanticCustomError

from wattle.names import NAME_PATTERN

MAX_WORKERS = 200_000
MAX_ENTRIES = 100_000
"""Entries of one list or mapping, except for the list of workers."""

MAX_TEXT = 100_000
"""Characters of one text. Linux takes at most 128 KiB in one argument or environment variable."""

MAX_SECONDS = 10 * 366 * 86400

_TOO_LARGE = 10**1_000  # Python refuses to write out whole numbers of some thousand digits
_MAX_WRITTEN = 40  # characters of a duration or size
_PART = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([kKMGTP]?)(i?)B")
_POWERS = " KMGTP"


def _refuse(reason: str, fix: str) -> NoReturn:
    """Fail validation of a value: ``reason`` ends a sentence that starts with the key, ``fix`` says what to do."""
    raise PydanticCustomError("refused", "{reason}", {"reason": reason, "fix": fix})


def as_text(value: object) -> object:
    """Numbers and booleans where a text is meant, as JSON writes them: ``true``, ``3``, ``0.5``. Others as they are."""
    if type(value) is str:
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if (isinstance(value, int) and abs(value) < _TOO_LARGE) or (isinstance(value, float) and math.isfinite(value)):
        return str(value)
    if value is None:
        _refuse("is null", "Write a text, or '' for an empty one.")
    return value


def as_seconds(value: object) -> object:
    """Durations written as texts (``90s``, ``10m``, ``1h30m``, ``250ms``) in seconds. Others as they are."""
    if not isinstance(value, str):
        return value
    compact = value.strip()
    parts = _PART.findall(compact) if len(compact) <= _MAX_WRITTEN else []
    if not parts or _PART.sub("", compact).strip():
        _refuse(
            f"is {value[:40]!r}, which is no duration",
            "Write seconds as a number, or a text such as '90s', '10m', '2h'.",
        )
    return sum(float(number) * _SECONDS[unit] for number, unit in parts)


def as_bytes(value: object) -> object:
    """Sizes written as texts (``512MB`` = 512,000,000, ``2GiB`` = 2,147,483,648) in bytes. Others as they are."""
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip()) if len(value) <= _MAX_WRITTEN else None
    if match is None or (match[3] and not match[2]):
        _refuse(f"is {value[:40]!r}, which is no size", "Write bytes as a number, or a text such as '512MB', '2GiB'.")
    base = 1024 if match[3] else 1000
    return float(match[1]) * float(base ** _POWERS.index(match[2].upper() or " "))


def _as_retries(value: object) -> object:
    return {"max": value} if isinstance(value, int) and not isinstance(value, bool) else value


def _as_secrets(value: object) -> object:
    """A list of secrets is told in variables of the same names. Others as they are."""
    if isinstance(value, list) and all(isinstance(name, str) for name in value):
        return {name: name for name in value}
    return value


def _check_command(value: object) -> str | list[str]:
    """A command as one text, or as a list of words."""
    if type(value) is str and value.isascii() and "\0" not in value and len(value) <= MAX_TEXT and value.strip():
        return value  # nearly all are like this
    words = [value] if isinstance(value, str) else value
    if not isinstance(words, list):
        _refuse("is no text and no list of texts", "Write it as on a command line, or as a list of words.")
    texts = [as_text(word) for word in words]
    for number, text in enumerate(texts):
        if not isinstance(text, str):
            _refuse(f"has word {number} that is no text", "Quote it.")
        if "\0" in text or len(text) > MAX_TEXT:
            _refuse("holds a NUL character or is too long", f"Remove it; a text has at most {MAX_TEXT:,} characters.")
        if not text.isascii() and any("\ud800" <= char <= "\udfff" for char in text):
            _refuse("is no valid Unicode", "Write it in UTF-8.")
    if not texts or not str(texts[0]).strip():
        _refuse("is empty", "Name the program to run.")
    return value if isinstance(value, str) else [str(text) for text in texts]


Name = Annotated[str, StringConstraints(pattern=rf"^{NAME_PATTERN}$")]
Variable = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", max_length=256)]
Source = Annotated[str, StringConstraints(pattern=rf"^{NAME_PATTERN}/{NAME_PATTERN}$")]
Text = Annotated[
    str,
    BeforeValidator(as_text),
    StringConstraints(pattern=r"^[^\x00]*$", max_length=MAX_TEXT),
    WithJsonSchema({"type": ["string", "number", "boolean"], "maxLength": MAX_TEXT}),
]
PathText = Annotated[str, StringConstraints(pattern=r"^[^\x00]+$", max_length=4096)]
Command = Annotated[
    str | list[str],
    PlainValidator(_check_command),
    WithJsonSchema({"type": ["string", "array"], "items": {"type": ["string", "number", "boolean"]}}),
]
Duration = Annotated[
    float,
    BeforeValidator(as_seconds),
    Field(ge=0, le=MAX_SECONDS, allow_inf_nan=False),
    WithJsonSchema({"type": ["number", "string"], "minimum": 0, "maximum": MAX_SECONDS}),
]
Amount = Annotated[float, Field(ge=0, le=1e18, allow_inf_nan=False)]
Bytes = Annotated[Amount, BeforeValidator(as_bytes), WithJsonSchema({"type": ["number", "string"], "minimum": 0})]
User = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}$")]
Priority = Annotated[int, Field(ge=-1_000_000, le=1_000_000)]
OnFailure = Literal["stop", "continue"]


class _NoItems(dict[Any, Any]):
    """An empty mapping that all instances share as their default (documents are never changed).

    It is hashable so that pydantic does not deep-copy it for each worker, which took half of the time of a large document.
    """

    __hash__ = object.__hash__  # type: ignore[assignment]  # dict declares that it has none


class _NoList(list[Any]):
    """The same for lists."""

    __hash__ = object.__hash__  # type: ignore[assignment]  # list declares that it has none


_NO_ITEMS = _NoItems()
_NO_LIST = _NoList()


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class Retries(_Part):
    """How often and when a failed worker is tried again."""

    max: int = Field(0, ge=0, le=1000, description="How many times it is tried again after a failure.")
    delay: Duration = Field(1.0, description="Wait before the first retry: seconds, or a text such as '5s'.")
    backoff: float = Field(
        2.0, ge=1, le=100, allow_inf_nan=False, description="Each further wait is this many times longer."
    )
    max_delay: Duration = Field(300.0, description="No wait is longer than this: seconds, or a text such as '10m'.")
    jitter: float = Field(
        0.1,
        ge=0,
        le=1,
        allow_inf_nan=False,
        description="Share of each wait by which it is lengthened or shortened at random.",
    )


class Resources(_Part):
    """What a worker uses while it runs; keys of your own name what nodes offer with ``--resource``."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[Name, Amount] = Field(init=False)

    cpus: Amount | None = Field(None, description="CPUs; fractions are fine.")
    memory: Bytes | None = Field(None, description="Memory in bytes, or a text such as '512MB' or '2GiB'.")
    gpus: Amount | None = Field(None, description="GPUs.")


class Limits(_Part):
    """What a worker gets at most, whatever it asks for: enforced by the node, or refused where that cannot."""

    memory: Annotated[Bytes, Field(ge=2**20)] | None = Field(
        None, description="Memory of all its processes, in bytes, or a text such as '512MB' or '2GiB'; 1 MiB or more."
    )
    cpu: Annotated[float, Field(ge=0.01, le=1e6, allow_inf_nan=False)] | None = Field(
        None, description="CPUs' worth of time; fractions are fine."
    )
    processes: Annotated[int, Field(ge=1, le=4_000_000)] | None = Field(
        None, description="Processes and threads at a time."
    )
    open_files: Annotated[int, Field(ge=8, le=1_000_000_000)] | None = Field(
        None, description="Files that one process has open at a time; 8 or more."
    )
    file_size: Annotated[Bytes, Field(ge=1)] | None = Field(
        None, description="Bytes of any file it writes, its output included, or a text such as '1GB'."
    )
    disk: Annotated[Bytes, Field(ge=2**16)] | None = Field(
        None,
        description="Bytes on the disk of its folder and its output together, or a text such as '10GB'; 64 KiB or more.",
    )
    time: Annotated[Duration, Field(gt=0)] | None = Field(
        None, description="CPU time of one process: seconds, or a text such as '10m'; rounded up to whole seconds."
    )


class Place(_Part):
    """Where a worker may run."""

    labels: dict[Name, Text] = Field(_NO_ITEMS, description="Labels that the node must have with these very values.")
    node: Name | None = Field(None, description="The one node it must run on.")


class Worker(_Part):
    """One step of a workflow: a command with inputs and outputs."""

    model_config = ConfigDict(json_schema_extra={"oneOf": [{"required": ["command"]}, {"required": ["script"]}]})

    name: Name = Field(description="The worker's name, unique in the workflow.")
    workflow_name: Name | None = Field(None, description="The workflow it belongs to; must equal the workflow's name.")
    description: str | None = Field(None, max_length=MAX_TEXT, description="For people.")
    command: Command | None = Field(
        None,
        description="The program and its arguments: a text split as a shell splits words, or a list. Runs without a shell.",
    )
    args: list[Text] = Field(
        _NO_LIST, description="More arguments: of the command, or of the script as $1, $2 and so on."
    )
    script: Annotated[str, StringConstraints(pattern=r"^[^\x00]*$", min_length=1, max_length=MAX_TEXT)] | None = Field(
        None, description="Shell text, run through sh -eu; instead of a command."
    )
    env_vars: dict[Variable, Text] = Field(_NO_ITEMS, description="Environment variables, on top of the workflow's.")
    secrets: Annotated[
        dict[Variable, Name], BeforeValidator(_as_secrets, json_schema_input_type=list[Variable] | dict[Variable, Name])
    ] = Field(
        _NO_ITEMS,
        description="Environment variables whose values are secrets of the node: the names of its entries by variable, or a list of "
        "entries named as their variables.",
    )
    working_dir: PathText | None = Field(
        None, description="The folder it runs in; relative to the workflow's. None: a fresh private folder per task."
    )
    inputs: dict[Name, Source] = Field(
        _NO_ITEMS, description="Files it reads, each as 'worker/output'; makes it wait for that worker."
    )
    outputs: dict[Name, PathText] = Field(
        _NO_ITEMS, description="Files it writes: a path, relative to its working folder."
    )
    needs: list[Name] = Field(_NO_LIST, description="Workers it waits for without reading from them.")
    retries: Annotated[Retries, BeforeValidator(_as_retries, json_schema_input_type=int | Retries)] = Field(
        Retries(), description="How often it is tried again after a failure: a number, or the particulars."
    )
    timeout: Annotated[Duration, Field(gt=0)] | None = Field(
        None, description="How long one attempt may take: seconds, or a text such as '10m'. None: as long as it takes."
    )
    kill_after: Duration = Field(
        10.0, description="From the TERM signal to the KILL signal when it is stopped: seconds or a text."
    )
    resources: Resources = Field(Resources(), description="What it uses while it runs.")
    limits: Limits = Field(Limits(), description="What it gets at most.")
    sandbox: Literal["none", "standard", "strict"] = Field(
        "none", description="What it may see and touch of its node; a node may require more."
    )
    run_as: User | None = Field(
        None, description="The user it runs as, on nodes whose runtime is root's. None: as the node says."
    )
    place: Place = Field(Place(), description="Where it may run.")
    priority: Priority | None = Field(
        None, description="Higher goes first among workers that could start. None: the workflow's."
    )
    on_failure: OnFailure | None = Field(
        None, description="What its final failure does to the rest of the run. None: as the workflow says."
    )
    on_disconnect: Literal["continue", "stop"] = Field(
        "continue", description="What its node does with it when no coordinator is in sight."
    )


class Document(_Part):
    """A workflow: a DAG of workers."""

    name: Name = Field(description="The workflow's name.")
    description: str | None = Field(None, max_length=MAX_TEXT, description="For people.")
    working_dir: PathText | None = Field(
        None, description="The folder all workers run in; absolute. None: a fresh private folder per task."
    )
    params: dict[Name, Text | None] = Field(
        _NO_ITEMS, description="Parameters and their defaults; null means that each run must give a value."
    )
    env_vars: dict[Variable, Text] = Field(_NO_ITEMS, description="Environment variables of all workers.")
    mode: Literal["dependency", "levels", "sequential"] = Field(
        "dependency", description="When workers start: as soon as theirs are done, level by level, or one at a time."
    )
    on_failure: OnFailure = Field(
        "stop",
        description="After a worker's final failure: start nothing more, or go on with all that does not need it.",
    )
    priority: Priority = Field(0, description="Priority of the workers that give none.")
    workers: Annotated[list[Worker], FailFast()] = Field(min_length=1, max_length=MAX_WORKERS, description="The steps.")


class _Schema(GenerateJsonSchema):
    def encode_default(self, dft: Any) -> Any:
        return (
            dict(dft)
            if isinstance(dft, _NoItems)
            else list(dft)
            if isinstance(dft, _NoList)
            else super().encode_default(dft)
        )


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the document, for editors and programs."""
    schema = Document.model_json_schema(schema_generator=_Schema, mode="validation")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
