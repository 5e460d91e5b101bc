"""Fixtures of the client's tests."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.fake_gateway import FakeGateway


@pytest.fixture
def gateway() -> Iterator[FakeGateway]:
    """A fake gateway in a folder with a path short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="w") as folder, FakeGateway(Path(folder)) as gateway:
        yield gateway
