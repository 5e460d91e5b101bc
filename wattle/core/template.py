"""References in a worker's texts: ``${params.X}``, ``${inputs.K}``, ``${outputs.K}`` and ``${run.id}``.

Any other ``${...}`` (``${HOME}``) is left as it is, and ``$${`` stands for a literal ``${``. Replacement is a single pass: a value that
looks like a reference itself stays what it is. Texts that become arguments, environment values or paths are filled in with
``render``; a script goes through ``render_script``, because a value pasted into shell text would be executed as shell text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from wattle.errors import InvalidRequest
from wattle.names import NAME_PATTERN

_TOKEN = re.compile(rf"\$\$\{{|\$\{{(?:(params|inputs|outputs)\.({NAME_PATTERN})|(run)\.(id))\}}")
_LOOKS_LIKE_ONE = re.compile(r"\$\$\{|\$\{\s*(?:params|inputs|outputs|run)\s*\.[^}]{0,80}\}?")
_VARIABLE = {"params": "WATTLE_PARAM_", "inputs": "WATTLE_INPUT_", "outputs": "WATTLE_OUTPUT_"}


class Reference(NamedTuple):
    """One reference: ``kind`` is ``params``, ``inputs``, ``outputs`` or ``run``; ``name`` what of it (``id`` for ``run``)."""

    kind: str
    name: str

    def __str__(self) -> str:
        return f"${{{self.kind}.{self.name}}}"


def references(text: str) -> list[Reference]:
    """The references of a text in order, repeated ones as often as they occur."""
    if "${" not in text:
        return []
    return [found for match in _TOKEN.finditer(text) if (found := _reference(match)) is not None]


def malformed(text: str) -> list[str]:
    """Parts that start like a reference and are none, such as ``${params.}`` or ``${run.name}``.

    No shell knows a ``${`` with a dot in it either, so they are surely mistakes.
    """
    if "${" not in text:
        return []
    parts = (match.group() for match in _LOOKS_LIKE_ONE.finditer(text))
    return [part for part in parts if part != "$${" and not _TOKEN.fullmatch(part)]


def render(text: str, values: Mapping[tuple[str, str], str]) -> str:
    """``text`` with every reference replaced by its value; keys are ``("params", "x")``, ``("run", "id")`` and so on.

    Raises InvalidRequest for a reference that has no value.

    >>> render("${params.who} costs $${5}", {("params", "who"): "${run.id}"})
    '${run.id} costs ${5}'
    """
    if "${" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        reference = _reference(match)
        if reference is None:
            return "${"
        if reference not in values:
            raise InvalidRequest(f"{reference} in {text[:80]!r} has no value here")
        return values[reference]

    return _TOKEN.sub(replace, text)


def render_script(text: str) -> str:
    """``text`` with every reference replaced by one to the environment variable that holds its value.

    >>> render_script('cat "${inputs.a-b}" > "${outputs.out}"')
    'cat "${WATTLE_INPUT_A_B}" > "${WATTLE_OUTPUT_OUT}"'
    """
    if "${" not in text:
        return text

    def replace(match: re.Match[str]) -> str:
        reference = _reference(match)
        return "${" if reference is None else f"${{{environment_name(*reference)}}}"

    return _TOKEN.sub(replace, text)


def environment_name(kind: str, name: str) -> str:
    """The environment variable that tells a task a value: upper case, ``.`` and ``-`` become ``_``.

    >>> environment_name("inputs", "left-part.csv")
    'WATTLE_INPUT_LEFT_PART_CSV'
    """
    if kind == "run":
        return "WATTLE_RUN"
    return _VARIABLE[kind] + name.upper().replace(".", "_").replace("-", "_")


def _reference(match: re.Match[str]) -> Reference | None:
    """None stands for the escape ``$${``."""
    kind = match.group(1) or match.group(3)
    return None if kind is None else Reference(kind, match.group(2) or match.group(4))
