"""docs/cli.md against the commands there are, and the example of docs/client.md."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer.main

from tests.client.fake_gateway import FakeGateway
from wattle.cli.app import app

ROOT = Path(__file__).parents[2]


def commands(group: Any, path: str = "wattle") -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, f"{path} {name}")
        else:
            yield f"{path} {name}", command


def test_every_command_and_option_is_documented() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    sections = dict(re.findall(r"(?ms)^## (.*?)$(.*?)(?=^## |\Z)", text))
    missing = []
    for name, command in commands(typer.main.get_command(app)):
        found = [body for heading, body in sections.items() if f"`{name}`" in body or f"`{name} " in body]
        if not found:
            missing.append(name)
        for option in (
            one for one in command.params if one.opts[0].startswith("-") and not getattr(one, "hidden", False)
        ):
            long = next(opt for opt in option.opts if opt.startswith("--"))
            if not any(long in body for body in [*found, sections["Options that many commands share"]]):
                missing.append(f"{name} {long}")
    assert not missing


def test_documented_options_exist() -> None:
    text = (ROOT / "docs" / "cli.md").read_text()
    known = {
        opt
        for _, command in commands(typer.main.get_command(app))
        for one in command.params
        for opt in (*one.opts, *one.secondary_opts)
    }
    known |= {opt for one in typer.main.get_command(app).params for opt in one.opts}
    known |= {"--help", "--install-completion", "--show-completion"}
    assert set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text)) <= known


def test_the_example_runs_and_stands_in_the_docs(gateway: FakeGateway) -> None:
    def finish(run: str) -> None:
        for name in gateway.workers[run]:
            gateway.set_worker(run, name, "running")
            gateway.append_log(run, name, b"hello from wattle\n")
        gateway.finish(run)

    gateway.on_submit = finish
    example = ROOT / "examples" / "client.py"
    done = subprocess.run(
        [sys.executable, str(example)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "WATTLE_CONNECT": gateway.endpoint},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "hello from wattle"
    body = example.read_text().split('"""', 2)[2].strip()
    assert body in (ROOT / "docs" / "client.md").read_text()
