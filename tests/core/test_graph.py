"""The graph functions, on random graphs and on very large ones."""

from __future__ import annotations

import graphlib
import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattle.core.graph import critical_path, dependents, find_cycle, levels, topological_order

DIAMOND = {"d": ["b", "c"], "b": ["a"], "c": ["a"], "a": [], "alone": []}
LARGE = 100_000

Graph = dict[str, list[str]]


@st.composite
def dags(draw: st.DrawFn) -> Graph:
    """Acyclic graphs whose mapping is in any order."""
    names = [f"w{number}" for number in range(draw(st.integers(0, 12)))]
    needs: Graph = {}
    for position, name in enumerate(names):
        needs[name] = draw(st.lists(st.sampled_from(names[:position]), max_size=4)) if position else []
    return {name: needs[name] for name in draw(st.permutations(names))}


@st.composite
def graphs(draw: st.DrawFn) -> Graph:
    """Any graphs, most of them with cycles."""
    names = [f"w{number}" for number in range(draw(st.integers(1, 8)))]
    return {name: draw(st.lists(st.sampled_from(names), max_size=2)) for name in names}


def reachable(needs: Graph, start: str) -> set[str]:
    seen: set[str] = set()
    todo = list(needs[start])
    while todo:
        name = todo.pop()
        if name not in seen:
            seen.add(name)
            todo += needs[name]
    return seen


def test_the_diamond() -> None:
    assert levels(DIAMOND) == [["a", "alone"], ["b", "c"], ["d"]]
    assert topological_order(DIAMOND) == ["a", "b", "c", "d", "alone"]
    assert dependents(DIAMOND) == {"d": [], "b": ["d"], "c": ["d"], "a": ["b", "c"], "alone": []}
    assert find_cycle(DIAMOND) is None
    assert critical_path(DIAMOND) == ["a", "b", "d"]
    assert critical_path(DIAMOND, {"c": 3.0, "b": 1.0, "d": 1.0}) == ["a", "c", "d"]
    assert critical_path(DIAMOND, {"alone": 9.0}) == ["alone"]


def test_an_empty_graph() -> None:
    assert levels({}) == []
    assert topological_order({}) == []
    assert find_cycle({}) is None
    assert critical_path({}) == []


def test_a_cycle_is_a_path_from_its_first_member_back_to_it() -> None:
    needs = {"x": [], "behind": ["b"], "a": ["c", "x"], "b": ["a"], "c": ["b"]}
    assert find_cycle(needs) == ["a", "b", "c", "a"]
    assert find_cycle({"self": ["self"]}) == ["self", "self"]


@pytest.mark.parametrize("function", [levels, topological_order, critical_path])
def test_what_needs_an_order_refuses_cycles(function: object) -> None:
    assert callable(function)
    with pytest.raises(graphlib.CycleError) as caught:
        function({"a": ["b"], "b": ["a"]})
    assert caught.value.args[1] == ["a", "b", "a"]


def test_an_unknown_need_is_a_key_error() -> None:
    with pytest.raises(KeyError, match="nobody"):
        levels({"a": ["nobody"]})


@settings(deadline=None)
@given(dags())
def test_levels_and_order_respect_every_edge(needs: Graph) -> None:
    depth = {name: number for number, level in enumerate(levels(needs)) for name in level}
    place = {name: number for number, name in enumerate(topological_order(needs))}
    assert depth.keys() == place.keys() == needs.keys()
    for name, waits_for in needs.items():
        assert depth[name] == max((depth[need] + 1 for need in waits_for), default=0)
        assert all(place[need] < place[name] for need in waits_for)
    assert find_cycle(needs) is None


@settings(deadline=None)
@given(dags())
def test_an_order_that_is_right_already_is_kept(needs: Graph) -> None:
    order = topological_order(needs)
    assert topological_order({name: needs[name] for name in order}) == order


@settings(deadline=None)
@given(dags())
def test_levels_keep_the_order_of_the_document(needs: Graph) -> None:
    place = {name: number for number, name in enumerate(needs)}
    for level in levels(needs):
        assert level == sorted(level, key=place.__getitem__)


@settings(deadline=None)
@given(graphs())
def test_a_cycle_is_found_if_and_only_if_there_is_one(needs: Graph) -> None:
    cycle = find_cycle(needs)
    assert (cycle is not None) == any(name in reachable(needs, name) for name in needs)
    if cycle is not None:
        assert cycle[0] == cycle[-1]
        assert len(set(cycle)) == len(cycle) - 1
        assert all(before in needs[after] for before, after in itertools.pairwise(cycle))


@settings(deadline=None)
@given(dags(), st.data())
def test_no_chain_takes_longer_than_the_critical_path(needs: Graph, data: st.DataObject) -> None:
    durations = {name: float(data.draw(st.integers(0, 9))) for name in needs}
    path = critical_path(needs, durations)
    assert all(before in needs[after] for before, after in itertools.pairwise(path))
    longest: dict[str, float] = {}
    for name in topological_order(needs):
        longest[name] = durations[name] + max((longest[need] for need in needs[name]), default=0.0)
    assert sum(durations[name] for name in path) == max(longest.values(), default=0.0)


def test_a_very_long_chain_written_backwards() -> None:
    chain = {f"w{n}": [f"w{n - 1}"] if n else [] for n in reversed(range(LARGE))}
    in_order = [f"w{n}" for n in range(LARGE)]
    assert topological_order(chain) == in_order
    assert critical_path(chain) == in_order
    assert len(levels(chain)) == LARGE
    chain["w0"] = [f"w{LARGE - 1}"]
    cycle = find_cycle(chain)
    assert cycle is not None
    assert len(cycle) == LARGE + 1


def test_a_very_wide_graph() -> None:
    wide = {"start": [], **{f"w{n}": ["start"] for n in range(LARGE)}, "end": [f"w{n}" for n in range(LARGE)]}
    assert [len(level) for level in levels(wide)] == [1, LARGE, 1]
    assert critical_path(wide) == ["start", "w0", "end"]
