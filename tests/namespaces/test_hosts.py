"""The LANs that the other tests stand on: what is cut is cut, and nothing else is."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.namespaces.hosts import IpError, Lan, lan

pytestmark = pytest.mark.namespaces

REFUSED, SILENCE = "refused", "silence"  # nothing listens on the port that is dialled, so a host in reach refuses
DIAL = """
import socket, sys
try:
    socket.create_connection((sys.argv[1], 9), timeout=0.3)
except ConnectionRefusedError:
    print("refused")
except TimeoutError:
    print("silence")
"""
SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
    for _ in range(2000):
        link.sendto(b"x", (sys.argv[1], 9))
"""


@pytest.fixture(scope="module")
def three() -> Iterator[Lan]:
    with lan("a", "b", "c") as made:
        yield made


def dial(made: Lan, source: str, target: str) -> str:
    return made[source].run(sys.executable, "-c", DIAL, made[target].address).stdout.strip()


def test_hosts_reach_each_other_and_nobody_else(three: Lan) -> None:
    assert dial(three, "a", "b") == dial(three, "b", "c") == REFUSED
    assert "default" not in three["a"].run("ip", "route").stdout


def test_a_cut_host_reaches_nobody_until_it_is_healed(three: Lan) -> None:
    three.cut(three["b"])
    assert (dial(three, "a", "b"), dial(three, "b", "a"), dial(three, "a", "c")) == (SILENCE, SILENCE, REFUSED)
    assert "NO-CARRIER" not in three["b"].run("ip", "link").stdout
    three.heal(three["b"])
    assert dial(three, "a", "b") == dial(three, "b", "a") == REFUSED


def test_the_sides_of_a_split_go_on_among_themselves(three: Lan) -> None:
    three.split(three["b"], three["c"])
    assert (dial(three, "a", "b"), dial(three, "c", "a"), dial(three, "b", "c")) == (SILENCE, SILENCE, REFUSED)
    three.heal(three["b"], three["c"])
    assert dial(three, "a", "b") == dial(three, "c", "a") == REFUSED


def test_a_parted_pair_reaches_all_but_one_another(three: Lan) -> None:
    three.part(three["a"], three["b"])
    three.cut(three["a"])
    three.heal(three["a"])  # which leaves the pair parted
    assert (dial(three, "a", "b"), dial(three, "a", "c"), dial(three, "b", "c")) == (SILENCE, REFUSED, REFUSED)
    three.rejoin()
    assert dial(three, "a", "b") == REFUSED


def test_packets_get_lost_in_the_share_that_is_asked_for(three: Lan) -> None:
    assert dial(three, "a", "c") == REFUSED  # and so it knows its address, which is asked for only once a second
    try:
        three.lose(three["c"], 1.0)
    except IpError as error:
        pytest.skip(f"this kernel loses no packets on purpose: {error}")
    assert dial(three, "a", "c") == SILENCE
    three.lose(three["c"], 0.3)
    before = received(three, "c")
    three["a"].run(sys.executable, "-c", SEND, three["c"].address)
    assert 1200 < received(three, "c") - before < 1600
    three.lose(three["c"], 0.0)
    assert dial(three, "a", "c") == REFUSED


def received(made: Lan, host: str) -> int:
    """Packets that have come to a host."""
    return int(made[host].run("cat", "/sys/class/net/eth0/statistics/rx_packets").stdout)


def fail_in_a_lan() -> None:
    with lan("a") as made:
        made["a"].run("false")


def test_nothing_is_left_of_a_lan_that_failed() -> None:
    before = namespaces()
    with pytest.raises(AssertionError, match="false: exit 1"):
        fail_in_a_lan()
    assert namespaces() <= before


def namespaces() -> set[str]:
    """Those that this process has made."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines() if line.startswith(f"wtl-{os.getpid()}-")}
