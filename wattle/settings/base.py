"""What the parts of settings share: what a class of settings is, what a file says, and what can be wrong.

All that is wrong is told at once, each with its place and the fix.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Protocol, Self

from wattle.errors import SettingsError

_SHOWN = 120  # characters of a value that an error repeats


class Settings(Protocol):
    """What every role's class of settings has."""

    role: ClassVar[str]

    @classmethod
    def setting_names(cls) -> frozenset[str]:
        """The names of all its settings."""

    @classmethod
    def build(cls, given: Mapping[str, Any]) -> Self:
        """Settings of the given values and, where those say nothing, of ``WATTLE_*`` variables; raises Rejected."""


class Problem(NamedTuple):
    """One wrong value. ``text`` is the end of a sentence that starts with the field and its value."""

    field: str
    value: object
    text: str


class Rejected(ValueError):
    """Values that no settings can be made of; ``problems`` lists them all."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


class Complaint(NamedTuple):
    """A problem with its place. ``source`` is file, variable, flag or default; ``where`` says where in it."""

    source: str
    where: str
    problem: Problem

    def __str__(self) -> str:
        value = "" if self.problem.value is None else f" = {shown(self.problem.value)}"
        return f"{self.where}{value} {self.problem.text}"

    def as_dict(self) -> dict[str, Any]:
        """The JSON form, an item of a SettingsError's detail."""
        value = None if self.problem.value is None else shown(self.problem.value)
        field, _, text = self.problem
        return {"source": self.source, "where": self.where, "key": field, "value": value, "problem": text}


@dataclass(slots=True)
class Contents:
    """What a file says for one role: values by field name, the place of each, and what is wrong with its keys."""

    values: dict[str, Any] = field(default_factory=dict)
    places: dict[str, str] = field(default_factory=dict)
    complaints: list[Complaint] = field(default_factory=list)


def settings_error(complaints: list[Complaint]) -> SettingsError:
    """One error that tells them all."""
    lines = [str(complaint) for complaint in complaints]
    text = lines[0] if len(lines) == 1 else f"{len(lines)} settings are wrong:\n  " + "\n  ".join(lines)
    return SettingsError(text, detail=[complaint.as_dict() for complaint in complaints])


def shown(value: object) -> str:
    """A value as an error repeats it: quoted, and cut when it is long."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}..."


def closest(name: str, names: Iterable[str]) -> str | None:
    """The one of ``names`` that was probably meant; None when nothing is near."""
    import difflib  # only wrong settings need it

    found = difflib.get_close_matches(name, sorted(names), n=1, cutoff=0.75)
    return found[0] if found else None
