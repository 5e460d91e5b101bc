"""Fixtures of the bus tests."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.bus.networks import MemoryNet, Net, ZenohNet


@pytest.fixture
def sockets() -> Iterator[Path]:
    """A folder for unix sockets: pytest's own are too deep for a socket's path."""
    with tempfile.TemporaryDirectory(prefix="w") as folder:
        yield Path(folder)


@pytest.fixture(params=["memory", "zenoh"])
async def net(request: pytest.FixtureRequest, sockets: Path) -> AsyncIterator[Net]:
    """A network of each kind in turn."""
    network = MemoryNet() if request.param == "memory" else ZenohNet(sockets)
    try:
        yield network
    finally:
        await network.close()
