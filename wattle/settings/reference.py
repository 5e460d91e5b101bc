"""The written reference, made of the code: the tables of docs/settings.md and the files in config/.

``python -m wattle.settings.reference`` in a checkout writes them anew; a test compares them.
"""

from __future__ import annotations

import dataclasses
import json
import re
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ByteSize

from wattle.settings.agents import AGENTS, KINDS, AgentSettings
from wattle.settings.client import ClientSettings
from wattle.settings.values import flag_name, variable_name

_EXAMPLES: dict[str, object] = {
    "data": "/var/lib/wattle",
    "name": "lab-1",
    "bundle": "/etc/wattle/lab-1.bundle",
    "zenoh_config": "zenoh-configs/router.json5",
    "token": "",
    "token_file": "/home/me/.wattle-token",
    "token_public_key": "/etc/wattle/token.pub",
    "cluster_id": "0123456789abcdef0123456789abcdef",
    "audit": True,
    "secrets_file": "/etc/wattle/secrets.toml",
    "log_file": "/var/log/wattle.log",
    "slots": 4,
}
_MARKS = re.compile(r"(<!-- settings of (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


class Setting(NamedTuple):
    """One setting as the reference tells of it. ``derived`` says what the default is where it is no fixed value."""

    name: str
    default: object
    derived: str | None
    description: str


def settings_of(role: str) -> list[Setting]:
    """What a role has of its own, including shared settings whose default differs; or, for ``shared``, what all agents have."""
    if role == "client":
        return [_setting(field.name, field.default, field.metadata) for field in dataclasses.fields(ClientSettings)]
    shared = AgentSettings.model_fields
    fields = shared if role == "shared" else AGENTS[role].model_fields
    return [
        _setting(name, info.default, {"description": info.description, **_extra(info.json_schema_extra)})
        for name, info in fields.items()
        if role == "shared" or name not in shared or info.default != shared[name].default
    ]


def _extra(extra: object) -> dict[str, Any]:
    return extra if isinstance(extra, dict) else {}


def _setting(name: str, default: object, about: Mapping[str, Any]) -> Setting:
    return Setting(name, default, about.get("derived"), about["description"])


def as_table(role: str) -> str:
    """The Markdown table of a role's settings."""
    rows = ["| key | variable | flag | default | meaning |", "|---|---|---|---|---|"]
    for setting in settings_of(role):
        default = setting.derived or f"`{_toml(setting.default)}`"
        names = f"`{setting.name}` | `{variable_name(setting.name)}` | `{flag_name(setting.name)}`"
        rows.append(f"| {names} | {default} | {setting.description} |")
    return "\n".join(rows) + "\n"


def as_toml(role: str) -> str:
    """The complete, commented settings file of a role.

    Every key is commented out with its default (with an example where that is no fixed value): what a file gives overrides a
    ``zenoh_config``, which defaults must not.
    """
    lines = [
        f"# Settings of a {role}, complete, each with its default. Use: wattle {role} --config {role}.toml",
        "# Remove the '#' before a key to change it. Variables (WATTLE_...) override this file, flags override both.",
        "# The reference is docs/settings.md.",
    ]
    if role == "client":
        lines[0] = (
            "# Settings of the command line and the SDK, complete, each with its default. Use: WATTLE_CONFIG=client.toml"
        )
        return "\n".join(lines) + "\n\n[client]\n" + _keys(settings_of(role))
    own = settings_of(role)
    names = {setting.name for setting in own}
    shared = [setting for setting in settings_of("shared") if setting.name not in names]
    return "\n".join(lines) + "\n\n" + _keys(shared) + (f"\n[{role}]\n" + _keys(own) if own else "")


def _keys(settings: list[Setting]) -> str:
    blocks = []
    for name, default, derived, description in settings:
        text = f"{description} Default: {derived}." if derived else description
        comment = textwrap.fill(text, 110, initial_indent="# ", subsequent_indent="# ", break_on_hyphens=False)
        blocks.append(f"{comment}\n#{name} = {_toml(_EXAMPLES[name] if derived else default)}\n")
    return "\n".join(blocks)


def _toml(value: object) -> str:
    if isinstance(value, ByteSize):
        return json.dumps(value.human_readable(separator="").replace(".0", ""))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + "}"
    return json.dumps(value)  # the rest of what settings hold is spelt alike in both


def written(root: Path) -> dict[Path, str]:
    """What the reference's files under ``root`` should hold."""
    page = root / "docs" / "settings.md"
    text = _MARKS.sub(lambda found: found[1] + as_table(found[2]) + found[3], page.read_text(encoding="utf-8"))
    return {page: text} | {root / "config" / f"{role}.toml": as_toml(role) for role in KINDS}


if __name__ == "__main__":
    for path, text in written(Path.cwd()).items():
        path.write_text(text, encoding="utf-8")
