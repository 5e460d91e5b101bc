"""What fuzzing starts from: the examples, the documents of other tests, a sound message of every type."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import importlib
import json
import types
from collections.abc import Mapping
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any, Union, get_args, get_origin, get_type_hints

import yaml

from tests.document.test_load import EXAMPLE, FULL
from tests.document.test_wfformat import SMALL
from tests.network.bad_inputs import TABLE
from wattle.document.load import load
from wattle.errors import InvalidRequest
from wattle.protocol import messages

ROOT = Path(__file__).parents[2]
_LARGEST = 5_000  # characters of a seed: mutations of larger ones cost time and find no more


@cache
def documents() -> tuple[str, ...]:
    """Workflow documents as they are written: JSON and YAML, sound and unsound."""
    texts = [EXAMPLE, FULL]
    texts += [
        path.read_text() for path in sorted((ROOT / "examples").rglob("*")) if path.suffix in (".json", ".yaml", ".yml")
    ]
    bodies = (bad.body for part in TABLE.values() for bad in part if bad.body)
    texts += [body.decode("utf-8", "replace") for body in bodies if len(body) <= _LARGEST]
    return tuple(dict.fromkeys(texts))


@cache
def json_documents() -> tuple[str, ...]:
    """The sound and nearly sound ones among them as JSON."""
    found = []
    for text in documents():
        try:
            value = yaml.safe_load(text)
            if isinstance(value, dict) and value.get("workers"):
                found.append(json.dumps(value))
        except (ValueError, yaml.YAMLError):
            continue
    return tuple(found)


@cache
def sound(texts: tuple[str, ...]) -> tuple[str, ...]:
    """The documents among them that load: what is changed a little in these gets furthest."""
    found = []
    for text in texts:
        with contextlib.suppress(InvalidRequest):
            load(text)
            found.append(text)
    return tuple(found)


def instances() -> list[str]:
    """WfFormat instances."""
    return [SMALL.decode(), json.dumps(json.loads(SMALL), indent=1)]


@cache
def message_types() -> tuple[type, ...]:
    """Every dataclass that peers tell each other, or a part of one; a new one is found by itself.

    They are what stands in messages.py, what is decoded anywhere else, and the parts of these.
    """
    found: set[type] = set()
    whole: list[Any] = [*vars(messages).values(), *decoded()]
    while whole:
        kind = whole.pop()
        if isinstance(kind, type) and dataclasses.is_dataclass(kind):
            if kind not in found:
                found.add(kind)
                whole += get_type_hints(kind).values()
        else:
            whole += get_args(kind)
    return tuple(sorted(found, key=str))


@cache
def decoded() -> frozenset[type]:
    """The types that wattle's code decodes, by every call of ``decode(Type, ...)`` in it."""
    found: set[type] = set()
    for path in sorted((ROOT / "wattle").rglob("*.py")):
        calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
        names = [
            call.args[0].id
            for call in calls
            if isinstance(call.func, ast.Name) and call.func.id == "decode" and isinstance(call.args[0], ast.Name)
        ]
        if names:
            module = importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
            found |= {getattr(module, name) for name in names}
    return frozenset(found)


def samples(kind: Any, depth: int = 0) -> list[Any]:
    """Values of an annotation: for a dataclass one with every field set, and one with its defaults."""
    origin, args = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return [value for part in args for value in samples(part, depth)]
    if kind is type(None):
        return [None]
    if origin is tuple:
        if args[-1] is Ellipsis:
            return [tuple(samples(args[0], depth + 1)), ()]
        return [tuple(samples(part, depth + 1)[0] for part in args)]
    if origin is list:
        return [samples(args[0], depth + 1), []]
    if origin is frozenset:
        return [frozenset(samples(args[0], depth + 1)[:1]), frozenset()]
    if origin in (dict, Mapping):
        return [dict(zip(samples(args[0]) * 9, samples(args[1], depth + 1), strict=False)), {}]
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        fields = dataclasses.fields(kind)
        whole = {f.name: samples(hints[f.name], depth + 1)[0] for f in fields}
        needed = {
            f.name: whole[f.name]
            for f in fields
            if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
        }
        return [kind(**whole), kind(**needed)]  # type: ignore[operator]  # a dataclass type, which mypy knows not to be an instance
    if isinstance(kind, type) and issubclass(kind, Enum):
        return list(kind)
    if isinstance(kind, type) and issubclass(kind, tuple) and hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return [kind(*(samples(hints[name])[0] for name in kind._fields))]
    simple: dict[Any, list[Any]] = {
        str: ["w", "0" * 64, "${params.w}", ""], int: [1, 0, 2**62], float: [1.5, 0.0], bool: [True, False], Any: [1, "x", [None]],
        object: [1],
    }  # fmt: skip
    return simple[kind]
