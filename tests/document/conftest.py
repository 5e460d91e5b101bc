"""What several tests of documents share."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.document.local import RunHere, run_locally


@pytest.fixture
def run_here(tmp_path: Path) -> RunHere:
    """Runs a compiled workflow below ``tmp_path / "data"``; returns what each worker wrote to stdout."""
    return lambda workflow: run_locally(workflow, tmp_path / "data")
