"""docs/document.md names every key of the document with its default, and says nothing that does not load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from wattle.document.load import load
from wattle.document.model import MAX_ENTRIES, MAX_TEXT, MAX_WORKERS, json_schema
from wattle.document.places import MAX_DEPTH
from wattle.document.problems import MAX_PROBLEMS
from wattle.document.syntax import MAX_BYTES
from wattle.document.yamltext import MAX_ALIASES, MAX_EXPANDED
from wattle.errors import InvalidDocument

PAGE = (Path(__file__).parents[2] / "docs" / "document.md").read_text(encoding="utf-8")
SCHEMA = json_schema()
PARTS = {
    "The workflow": SCHEMA,
    **{title: SCHEMA["$defs"][name] for title, name in {"A worker": "Worker", "Failures": "Retries"}.items()},
}


def section(title: str) -> str:
    return PAGE.split(f"\n## {title}\n")[1].split("\n## ")[0]


def rows(text: str) -> dict[str, list[str]]:
    """The rows of a page's tables that start with a key."""
    cells = (line.strip("|").split("|") for line in text.splitlines() if line.startswith("| `"))
    return {row[0].strip(" `"): [cell.strip(" `") for cell in row[1:]] for row in cells}


@pytest.mark.parametrize("title", PARTS)
def test_every_key_has_its_row_and_no_other_has(title: str) -> None:
    assert rows(section(title)).keys() == PARTS[title]["properties"].keys()


def test_the_keys_of_resources_and_place_have_their_rows() -> None:
    keys = {**SCHEMA["$defs"]["Resources"]["properties"], **SCHEMA["$defs"]["Place"]["properties"]}
    assert rows(section("Where workers run")).keys() == keys.keys()


def test_the_keys_of_limits_have_their_rows() -> None:
    assert rows(section("Limits and sandbox")).keys() == SCHEMA["$defs"]["Limits"]["properties"].keys()


@pytest.mark.parametrize("title", PARTS)
def test_defaults_are_as_written(title: str) -> None:
    written: dict[str, Any] = {"": None, "none": None, "{}": {}, "[]": [], "the workflow's": None}
    for key, row in rows(section(title)).items():
        about: dict[str, Any] = PARTS[title]["properties"][key]
        if row[1] == "required":
            assert key in PARTS[title]["required"]
        elif key == "retries":
            assert row[1] == str(about["default"]["max"])
        elif key in ("resources", "place", "limits"):
            assert row[1] == "{}"
        elif key == "sandbox":
            assert row[1] == about["default"] == "none"
        elif row[1] in written:
            assert about["default"] == written[row[1]], key
        else:
            assert str(about["default"]).removesuffix(".0") == row[1], key


@pytest.mark.parametrize(
    "limit",
    [
        f"{MAX_BYTES // 2**20} MiB",
        f"depth | {MAX_DEPTH}",
        f"workers | {MAX_WORKERS:,}",
        f"mapping | {MAX_ENTRIES:,}",
        f"{MAX_TEXT:,} characters",
        f"{MAX_ALIASES:,}, ",
        f"{MAX_EXPANDED:,} values",
        f"{MAX_PROBLEMS:,}",
    ],
)
def test_limits_are_as_written(limit: str) -> None:
    assert limit in section("YAML and JSON")


def test_the_first_example_loads_and_the_error_shown_is_what_it_gives() -> None:
    text = PAGE.split("```yaml\n")[1].split("```")[0]
    assert [worker.name for worker in load(text).workers] == ["fetch", "count"]
    with pytest.raises(InvalidDocument) as caught:
        load(text.replace("fetch/raw", "fetch/rwa"), file="report.yaml")
    assert caught.value.message in PAGE
