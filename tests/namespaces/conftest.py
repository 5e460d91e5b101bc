"""Skips everything here where there are no network namespaces."""

from __future__ import annotations

import pytest

from tests.namespaces.hosts import problem


@pytest.fixture(autouse=True, scope="module")
def _namespaces() -> None:
    found = problem()
    if found is not None:
        pytest.skip(found)
