"""Settings of who has a bundle: what it says takes the place of the defaults; who it is for cannot be chosen otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from wattle.errors import SettingsError
from wattle.security.bundle import entrances
from wattle.security.membership import Membership, join
from wattle.settings.base import Settings
from wattle.settings.load import load_settings
from wattle.settings.values import flag_name, socket_endpoint, socket_problem

Kind = TypeVar("Kind", bound=Settings)


def settings_of_member(
    kind: type[Kind],
    file: Path,
    data: Path,
    *,
    config: Path | str | None = None,
    flags: Mapping[str, Any] | None = None,
) -> Kind:
    """``load_settings`` with the values of the bundle in ``file``; raises SettingsError, also where it is for another role."""
    membership = join(file, data)
    _check_role(membership, file, kind.role)
    beneath = _values(membership, data, kind.role)
    settings = load_settings(kind, config=config, flags=flags, beneath=beneath)
    for name in {"name", "namespace"} & set(beneath):
        chosen = getattr(settings, name)
        if chosen != beneath[name]:
            raise SettingsError(
                f"{flag_name(name)} {chosen}: the bundle {file} is for {beneath[name]!r}; leave it out, or use another bundle"
            )
    return settings


def _values(membership: Membership, data: Path, role: str) -> dict[str, Any]:
    bundle = membership.bundle
    if role == "client":
        return {"namespace": bundle.namespace, "connect": entrances(membership.rosters)}
    local = () if membership.mode == "client" or socket_problem(data) else (socket_endpoint(data),)
    values: dict[str, Any] = {
        "name": bundle.name,
        "namespace": bundle.namespace,
        "mode": membership.mode,
        "connect": membership.connect,
        "listen": (*local, *membership.listen),
    }
    if role == "gateway" and membership.token_keys:
        values |= {"token_public_key": membership.token_keys, "cluster_id": membership.rosters[0].cluster}
    return values


def _check_role(membership: Membership, file: Path, role: str) -> None:
    bundle = membership.bundle
    if role == "client":
        if not bundle.may_ask():
            raise SettingsError(
                f"the bundle {file} is for a {' and '.join(bundle.roles)}, from which gateways take no requests;"
                " use one of a client: wattle cluster issue NAME --role client"
            )
    elif role not in bundle.roles:
        raise SettingsError(f"the bundle {file} is for {' and '.join(bundle.roles)}, not for a {role}")
