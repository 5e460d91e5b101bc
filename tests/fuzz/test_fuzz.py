"""Every target for a moment, and the engine against faults put there on purpose. Campaigns: ``make fuzz``."""

from __future__ import annotations

import re
from dataclasses import is_dataclass
from pathlib import Path
from random import Random
from typing import Any, ClassVar

import pytest

from tests.coordinator.world import world
from tests.fuzz import TARGETS, corpus
from tests.fuzz.agents import ROOT
from tests.fuzz.cast import no_processes, start_runtime
from tests.fuzz.engine import Target, campaign, replay
from tests.fuzz.mutate import seed_of
from tests.fuzz.ways import ANSWERS, COMMANDS, REQUESTS, named, ways
from wattle.bus import memory
from wattle.bus.keyexpr import includes
from wattle.core.model import RunRecord, TaskRecord, WorkerRecord
from wattle.errors import InvalidRequest
from wattle.gateway.request import Method
from wattle.protocol import messages
from wattle.protocol.verbs import COPIES, KEEP, OF_RUNTIMES, PRUNED
from wattle.store.owned import Definition, _Submitted


@pytest.mark.parametrize("name", TARGETS)
def test_a_few_inputs_of_each_target_find_nothing(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTLE_DATA", str(tmp_path))
    report = campaign(TARGETS[name], inputs=400, seconds=10, seed=2, folder=tmp_path / "findings")
    assert not report.findings, "\n".join(f"{f.what}: {f.given!r}\n{f.story}" for f in report.findings)
    assert sum(report.outcomes.values()) >= report.inputs > 0
    assert len(report.outcomes) > 1, "a target that refuses nothing, or everything, tries nothing"


def test_every_message_type_is_fuzzed_by_itself_and_on_its_way() -> None:
    carried = {kind for kinds in COMMANDS.values() for kind in kinds} | set(ANSWERS.values())
    assert corpus.decoded() - carried == {RunRecord, WorkerRecord, TaskRecord, _Submitted, Definition}, (
        "what else is decoded is the rows of a copy; a new message belongs into COMMANDS or ANSWERS"
    )
    types = set(corpus.message_types())
    assert carried | corpus.decoded() <= types
    assert types >= {kind for kind in vars(messages).values() if isinstance(kind, type) and is_dataclass(kind)}


async def test_everything_that_agents_serve_and_hear_is_fuzzed(tmp_path: Path) -> None:
    found = ways(Random(1))
    asked = {ROOT + named(way.path) for way in found}
    with no_processes():
        async with world(tmp_path) as net:
            coordinator = await net.coordinator("c1")
            gateway = await net.gateway()
            await start_runtime(net, "node2")
            for name in ("c1", "g1", "node2"):
                keys = [
                    declared.key
                    for declared in net.buses[name].declared
                    if isinstance(declared, memory._Queryable | memory._Subscription | memory._Watch)
                ]
                assert len(keys) >= 4, keys
                for key in keys:
                    assert any(includes(key, way) for way in asked if "*" not in way), f"nothing is told on {key}"
            commands = {*COMMANDS, *REQUESTS}
            requests = coordinator._requests
            assert {*requests._verbs, *requests._tasks, *COPIES, KEEP, PRUNED} <= commands
            assert set(OF_RUNTIMES) <= commands
            assert {*COMMANDS, *REQUESTS} <= {way.split("/")[-1] for way in asked}
            for method, pattern, *_ in gateway._routes.table:
                path = re.sub("<[a-z]+>", "*", f"{ROOT}api/v1/{pattern}")
                how = "get" if method in (Method.GET, Method.POST) else str(method)
                assert any(way.how == how and includes(path, ROOT + named(way.path)) for way in found), (
                    method,
                    pattern,
                )


class Faulty(Target):
    """Bytes, of which those with an ``x`` fail in the way that ``fault`` says."""

    name = "faulty"
    seconds = 0.1
    fault: ClassVar[Any]

    def make(self) -> Any:
        return (self.random.randbytes(200),)

    def check(self, given: Any) -> str:
        if b"x" in given[0]:
            self.fault()
        return "accepted"


def _raise(error: Exception) -> None:
    raise error


def _for_ever() -> None:
    while True:
        pass


FAULTS: dict[str, Any] = {
    "ZeroDivisionError": lambda: 1 // 0,
    "AssertionError": lambda: _raise(InvalidRequest("no")),
    "TooLong": _for_ever,
}


@pytest.mark.parametrize("what", FAULTS)
def test_a_fault_is_found_shrunk_and_replayed(what: str, tmp_path: Path) -> None:
    kind = type("Faulty", (Faulty,), {"fault": staticmethod(FAULTS[what])})
    report = campaign(kind, inputs=20, seconds=30, seed=1, folder=tmp_path)
    (finding,) = report.findings
    assert finding.what.startswith(what)
    assert b"x" in finding.given[0]
    assert what == "TooLong" or finding.given == (b"x",)
    assert finding.file is not None
    assert replay(kind, finding.file) == finding.what


def test_memory_that_grows_is_found() -> None:
    kept: list[bytes] = []
    grows = staticmethod(lambda: kept.append(bytes([1]) * (1 << 20)))
    kind = type("Growing", (Faulty,), {"fault": grows, "growth": 16 << 20, "batch": 10})
    report = campaign(kind, inputs=100, seconds=30, seed=1)
    assert [finding.what.split(":")[0] for finding in report.findings] == ["memory"]


def test_the_same_seed_makes_the_same_inputs() -> None:
    for kind in TARGETS.values():
        first, second = ([target.make() for _ in range(50)] for target in (kind(Random(5)), kind(Random(5))))
        assert first == second, kind.name


def test_values_of_a_json_text_are_found_with_their_keys() -> None:
    text = '{"a": [1, {"b": "x"}], "c": {}}'
    found = {(text[s.whole : s.end]) for s in seed_of(text).spans}
    assert {'"a": [1, {"b": "x"}]', "1", '{"b": "x"}', '"b": "x"', '"c": {}', '"a"', '"b"', '"c"'} <= found
