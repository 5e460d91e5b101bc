"""Fixtures of the coordinator's tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.coordinator.world import World, world


@pytest.fixture
async def net(tmp_path: Path) -> AsyncIterator[World]:
    """A network in memory."""
    async with world(tmp_path) as made:
        yield made
