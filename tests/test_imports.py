"""What an agent imports, it pays for in memory for as long as it lives: a role brings along its own parts alone."""

import subprocess
import sys

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
