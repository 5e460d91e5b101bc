"""What an agent imports, it pays for in memory for as long as it lives: a role brings along its own parts alone."""

import subprocess
import sys
from pathlib import Path

import pytest

COSTLY = ("peewee", "yaml", "wattle.document.model", "wattle.core.coordinator", "wattle.core.runtime")


@pytest.mark.parametrize(
    ("role", "needed"),
    [
        ("coordinator", ["peewee", "wattle.document.model", "wattle.core.coordinator"]),
        ("runtime", ["peewee", "wattle.core.runtime"]),
        ("gateway", []),
    ],
)
def test_an_agent_imports_what_its_role_needs(role: str, needed: list[str]) -> None:
    code = f"import sys, wattle.host, wattle.{role}.agent; print(*(m for m in {COSTLY} if m in sys.modules))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.split() == needed


def test_the_spawner_imports_nothing_that_costs() -> None:
    code = f"import sys; sys.path.append({str(Path(__file__).parents[1])!r}); import wattle.runtime.spawner; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-I", "-S", "-c", code], capture_output=True, text=True, check=True)
    loaded = set(found.stdout.split())
    assert "wattle.runtime.spawner" in loaded
    assert not loaded & {"dataclasses", "inspect", "subprocess", "logging", "pathlib", "threading", *COSTLY}
