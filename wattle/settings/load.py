"""Settings out of their four sources, weakest first: defaults, a TOML file, ``WATTLE_*`` variables, flags.

Nothing here imports pydantic: an agent's class brings it along, a client needs it only to read a file.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from wattle.errors import SettingsError
from wattle.logs import get_logger
from wattle.settings.base import Complaint, Contents, Problem, Rejected, Settings, closest, settings_error
from wattle.settings.values import as_path, flag_name, variable_name, variables

Kind = TypeVar("Kind", bound=Settings)

# What tasks find in their environment, which is no setting.
_OF_TASKS = frozenset({"run", "worker", "attempt", "workflow", "task", "spawner"})
_OF_TASKS_PREFIXES = ("input_", "output_", "param_")

_warned: set[str] = set()
log = get_logger("wattle.settings")


def load_settings(
    kind: type[Kind],
    *,
    config: Path | str | None = None,
    flags: Mapping[str, Any] | None = None,
    beneath: Mapping[str, Any] | None = None,
) -> Kind:
    """The settings of one role.

    ``config`` is a TOML file, by default the one that ``WATTLE_CONFIG`` names, by default none. ``flags`` are values by field
    name; None and empty lists count as not given. ``beneath`` takes the place of the defaults, as a bundle's values do. A variable
    that has nearly a setting's name is warned of, once per process.
    Raises SettingsError that names every wrong value with its place.
    """
    given_variables = variables()
    chosen = {name: value for name, value in (flags or {}).items() if value is not None and value not in ([], ())}
    names = kind.setting_names()
    _warn_of_misspelt(given_variables, names)

    contents = _contents(kind, config, given_variables.get("config"))
    complaints = list(contents.complaints)
    below = {**(beneath or {}), **contents.values}
    given = {name: value for name, value in below.items() if name not in given_variables} | chosen
    try:
        settings = kind.build(given)
    except Rejected as rejected:
        complaints += [_placed(problem, chosen, given_variables, contents.places) for problem in rejected.problems]
    if complaints:
        raise settings_error(complaints)
    return settings


def _contents(kind: type[Settings], config: Path | str | None, variable: str | None) -> Contents:
    path, given_by = (variable, variable_name("config")) if config is None else (config, flag_name("config"))
    if path is None:
        return Contents()
    from wattle.settings.files import read_file  # late: it takes the classes of all roles along

    try:
        return read_file(as_path(path), kind, given_by)
    except ValueError as error:
        raise SettingsError(f"{given_by} = {str(path)!r} {error}") from None


def _placed(
    problem: Problem, flags: Mapping[str, object], given_variables: Mapping[str, str], places: Mapping[str, str]
) -> Complaint:
    """The problem with the source that the value came from: the strongest that gave one."""
    name, bracket, rest = problem.field.partition("[")
    if name in flags:
        return Complaint("flag", flag_name(name) + bracket + rest, problem)
    if name in given_variables:
        return Complaint("variable", variable_name(name) + bracket + rest, problem)
    if name in places:
        return Complaint("file", places[name] + bracket + rest, problem)
    return Complaint("default", f"the default of {name}", problem)


def _warn_of_misspelt(given: Iterable[str], names: frozenset[str]) -> None:
    """Warn, once per process, of variables that no role reads and that look like one of those it does."""
    strange = [name for name in given if name not in names and not _is_known(name) and name not in _warned]
    if not strange:
        return
    from wattle.settings.agents import KINDS  # late: a client pays for it only when its environment looks odd

    known = {"config"}.union(*(kind.setting_names() for kind in KINDS.values()))
    for name in strange:
        near = None if name in known else closest(name, known)
        if near is not None:
            _warned.add(name)
            log.warning("unknown variable ignored", variable=variable_name(name), did_you_mean=variable_name(near))


def _is_known(name: str) -> bool:
    return name == "config" or name in _OF_TASKS or name.startswith(_OF_TASKS_PREFIXES)
