"""The rules against the docs, and against Zenoh."""

import json
from pathlib import Path

import zenoh

from tests.security.members import Members
from wattle.security.reference import PAGE, written

ROOT = Path(__file__).parents[2]


def test_the_docs_have_the_rules_as_they_are() -> None:
    page = (ROOT / PAGE).read_text()
    assert written(page) == page, "make reference writes it anew"


def test_zenoh_takes_the_rules(members: Members) -> None:
    config = zenoh.Config()
    for path, value in members.member("r1").zenoh_values().items():
        config.insert_json5(path, json.dumps(value))
    assert config.get_json("access_control/default_permission") == '"deny"'
