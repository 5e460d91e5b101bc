"""What doctor makes of what peers see of each other."""

from __future__ import annotations

from typing import Any

from wattle.cli.findings import Finding
from wattle.cli.pairs import Views, findings


def other(name: str, *, heard: bool = True, answered: bool = True, clock: float = 0.0, **more: Any) -> dict[str, Any]:
    told = {"took": 0.002, "clock": clock} if answered else {"problem": "nobody serves it"}
    return {"role": "runtime", "name": name, "heard": heard, "answered": answered, **told, **more}


def peer(name: str, others: list[dict[str, Any]], *links: tuple[str, str]) -> Any:
    return {
        "role": "runtime", "name": name, "incarnation": "i", "time": "", "session": f"s-{name}",
        "links": [{"session": f"s-{to}", "kind": kind, "address": "tcp/192.0.2.1:7447"} for to, kind in links], "others": others,
    }  # fmt: skip


def wrong(*peers: Any, silent: tuple[str, ...] = ()) -> list[Finding]:
    """What is found wrong."""
    answer = {"peers": list(peers), "silent": [{"role": "runtime", "name": name} for name in silent]}
    found = list(findings(Views(answer)))
    assert any(finding.ok for finding in found)
    return [finding for finding in found if not finding.ok]


def test_a_network_that_is_well_has_nothing_wrong() -> None:
    assert wrong(peer("a", [other("b")], ("b", "peer")), peer("b", [other("a")], ("a", "peer"))) == []


def test_peers_without_a_link_are_told_that_peers_do_not_relay() -> None:
    lost = [other("b", heard=False, answered=False), other("c")]
    a, b = (
        peer("a", lost, ("c", "peer")),
        peer("b", [other("a", heard=False, answered=False), other("c")], ("c", "peer")),
    )
    c = peer("c", [other("a"), other("b")], ("a", "peer"), ("b", "peer"))
    found = wrong(a, b, c)
    assert [finding.seen.split(" nor ")[0] for finding in found] == [
        "runtime a neither hears runtime b",
        "runtime b neither hears runtime a",
    ]
    assert all("peers relay for nobody" in (finding.fix or "") for finding in found)


def test_clients_of_routers_without_a_link_are_told_to_link_the_routers() -> None:
    a = peer("a", [other("b", heard=False, answered=False)], ("r", "router"))
    b = peer("b", [other("a")], ("q", "router"))
    r = peer("r", [other("a")], ("a", "client"))
    (found,) = wrong(a, b, r)
    assert "link their routers" in (found.fix or "")


def test_who_is_heard_and_does_not_answer_points_to_the_access_rules() -> None:
    (found,) = wrong(peer("a", [other("b", answered=False)], ("b", "peer")), peer("b", [other("a")], ("a", "peer")))
    assert found.seen == "runtime a hears runtime b and gets no answer from it (nobody serves it)"
    assert "access rules" in (found.fix or "")


def test_one_that_is_silent_is_named_once_more_only_as_the_cause() -> None:
    found = wrong(peer("a", [other("b", answered=False), other("c")]), peer("c", [other("a")]), silent=("b",))
    assert [finding.what for finding in found] == ["peers", "pairs"]
    assert found[1].fix == "see what is said of runtime b"


def test_a_clock_that_is_off_is_told_by_most_and_is_that_machines() -> None:
    ahead = [other("a", clock=-5.0), other("b", clock=-5.0)]
    found = wrong(
        peer("a", [other("b"), other("c", clock=5.0)]), peer("b", [other("a"), other("c", clock=5.0)]), peer("c", ahead)
    )
    named = [finding for finding in found if "runtime c" in (finding.fix or "")]
    assert [finding.seen for finding in named] == [
        "the clock of runtime c is +5.000 s off (give or take 0.001 s), as runtime a sees it"
    ]


def test_unlike_protocols_are_wrong_and_unlike_versions_are_said() -> None:
    a, b = (peer(one, [other(two, version=two, protocol=3 + (two == "a"))]) for one, two in ("ab", "ba"))
    assert [finding.what for finding in wrong(a, b)] == ["peers' protocols"]


def test_who_takes_orders_from_anybody_is_named() -> None:
    (found,) = wrong(peer("a", [other("b", insecure=True)]), peer("b", [other("a", insecure=False)]))
    assert found.seen == "runtime b takes orders from whoever reaches it (--insecure)"
