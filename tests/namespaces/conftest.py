"""Makes what stands here and the harness of tests/network importable, and skips all where there are no network namespaces."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "network")]


@pytest.fixture(autouse=True, scope="module")
def _namespaces() -> None:
    from hosts import problem  # found on the path set above

    found = problem()
    if found is not None:
        pytest.skip(found)
