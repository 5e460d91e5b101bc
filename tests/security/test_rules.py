"""The rules against the docs, and against Zenoh."""

import json
from pathlib import Path

import zenoh

from tests.coordinator.world import KEYS, world
from tests.fuzz.cast import no_processes, start_runtime
from tests.security.members import Members
from wattle.bus import memory
from wattle.bus.keyexpr import includes
from wattle.protocol.verbs import CHANGES, READS
from wattle.security.access import grants
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


SAID_BY = {
    memory._Subscription: "declare_subscriber",
    memory._Queryable: "declare_queryable",
    memory._Alive: "liveliness_token",
    memory._Watch: "declare_liveliness_subscriber",
}


async def test_agents_may_declare_all_that_they_declare(tmp_path: Path) -> None:
    with no_processes():
        async with world(tmp_path) as net:
            coordinator = await net.coordinator("c1")
            await net.gateway()
            await start_runtime(net, "node2")
            requests = coordinator._requests
            assert {*requests._verbs, *requests._tasks} == {*READS, *CHANGES}
            for role, name in (("coordinator", "c1"), ("gateway", "g1"), ("runtime", "node2")):
                allowed = [(m, key) for said in grants(role, [name], KEYS) for m in said.messages for key in said.keys]
                declared = [(SAID_BY[type(d)], d.key) for d in net.buses[name].declared if type(d) in SAID_BY]
                assert {message for message, _ in declared} == set(SAID_BY.values()) - (
                    {"declare_subscriber"} if role == "runtime" else set()
                )
                for message, key in declared:
                    assert any(message == m and includes(may, key) for m, may in allowed), f"{role}: {message} {key}"
