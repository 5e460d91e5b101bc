"""Fixtures of the runtime's tests."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A folder whose path is longer than a socket's address may be."""
    folder = tmp_path / ("long-name-" * 10)
    folder.mkdir()
    return folder
