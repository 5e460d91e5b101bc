"""What all tests share."""

from pathlib import Path

import pytest
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # no timed assertions: a busy machine is no failure
settings.load_profile("untimed")

TESTS = Path(__file__).parent
FIRST = ("sim", "cluster", "namespaces", "network", "torture", "security", "fuzz")  # with the longest files


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the long files first: run side by side, none of them is then left alone at the end."""
    items.sort(key=lambda item: _place(item.path.relative_to(TESTS).parts[0]))


def _place(folder: str) -> int:
    return FIRST.index(folder) if folder in FIRST else len(FIRST)
