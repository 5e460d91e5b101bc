"""docs/dependencies.md gives a reason for each dependency of pyproject.toml, and for nothing else."""

from __future__ import annotations

import itertools
import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_every_dependency_has_its_reason() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    declared = [*project["dependencies"], *itertools.chain(*project["optional-dependencies"].values())]
    page = (ROOT / "docs/dependencies.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| ([\w-]+) \| (?!why)\S", page, re.MULTILINE)
    assert sorted(explained) == sorted(re.split(r"[<>=\[]", line)[0] for line in declared)
