"""One network over three machines of a LAN that find each other by multicast: zenoh-configs/lan-peer.json5, no router, no address known
but the gateway's. The coordinator is on ``a``, the gateway on ``b``, runtimes on all, and people work on ``c``."""

from __future__ import annotations

import hashlib
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces.gates import PATIENCE, Gates
from tests.namespaces.hosts import Host, Lan, lan, on, together
from tests.network.processes import WATTLE, stock_client, wait_until

pytestmark = pytest.mark.namespaces

PEER = ("--zenoh-config", str(Path(__file__).parents[2] / "zenoh-configs" / "lan-peer.json5"))
GATEWAY = "tcp/10.77.0.2:7447"
STOCK = Path(__file__).with_name("stock.py")


@pytest.fixture(scope="module")
def site() -> Iterator[Lan]:
    with lan("a", "b", "c") as made:
        together(
            partial(made["b"].network.start, "gateway", "door", *PEER, "--listen", GATEWAY),
            partial(made["a"].network.start, "coordinator", "head", *PEER),
            *(partial(host.network.start, "runtime", host.name, *PEER) for host in made.hosts.values()),
        )
        with stock_client(made["b"].window(7447)) as client:
            client.nodes(3)
        yield made


def at(host: Host, *arguments: str) -> str:
    """What a command of Wattle prints on a host, given the gateway's address."""
    return host.network.wattle(*arguments, "--connect", GATEWAY).stdout


def file_of(host: Host, run: str, worker: str, name: str) -> bytes:
    """A file that a worker left in its private folder on a host."""
    return (host.network.folder / host.name / "work" / run / f"{worker}.1" / name).read_bytes()


def worker(name: str, node: str, script: str, inputs: dict[str, str] | None = None, **outputs: str) -> dict[str, Any]:
    return {"name": name, "script": script, "inputs": inputs or {}, "outputs": outputs, "place": {"node": node}}


def diamond(name: str) -> dict[str, Any]:
    """Random bytes made on ``a`` fan out to all three nodes and are joined on ``c``."""
    add = 'cat "${inputs.seed}" > part.bin; echo from-%s >> part.bin; echo done'
    parts = [worker(f"on-{node}", node, add % node, {"seed": "seed/bytes"}, part="part.bin") for node in "abc"]
    return {
        "name": name,
        "workers": [
            worker("seed", "a", "head -c 300000 /dev/urandom > seed.bin", bytes="seed.bin"),
            *parts,
            worker(
                "join",
                "c",
                'cat "${inputs.a}" "${inputs.b}" "${inputs.c}" > all.bin; wc -c < all.bin',
                {node: f"on-{node}/part" for node in "abc"},
                all="all.bin",
            ),
        ],
    }


def test_files_travel_between_machines_byte_for_byte(site: Lan, tmp_path: Path) -> None:
    a, c = site["a"], site["c"]
    document = tmp_path / "diamond.json"
    document.write_text(json.dumps(diamond("diamond")))
    run = at(c, "submit", str(document)).strip()
    assert json.loads(at(c, "get", f"runs/{run}?wait={PATIENCE}"))["status"] == "succeeded"
    seed = file_of(a, run, "seed", "seed.bin")
    expected = b"".join(seed + f"from-{node}\n".encode() for node in "abc")
    assert len(seed) == 300_000
    assert file_of(c, run, "join", "all.bin") == expected
    assert at(c, "logs", run, "join").strip() == str(len(expected))
    workers = {w["name"]: w for w in json.loads(at(c, "get", f"runs/{run}/workers"))["workers"]}
    assert {name: (w["node"], len(w["attempts"])) for name, w in workers.items()} == {
        "seed": ("a", 1), "on-a": ("a", 1), "on-b": ("b", 1), "on-c": ("c", 1), "join": ("c", 1),
    }  # fmt: skip
    assert workers["join"]["results"]["all"]["digest"] == hashlib.sha256(expected).hexdigest()


def test_a_stock_client_on_another_machine_needs_no_wattle_code(site: Lan) -> None:
    command = ["env", f"PYTHONPATH={os.pathsep.join(sys.path)}", sys.executable, str(STOCK), GATEWAY, "stock-1"]
    told = json.loads(site["c"].run(*command, text=json.dumps(diamond("stock")), timeout=2 * PATIENCE).stdout)
    assert told["status"] == "succeeded"
    assert told["events"][-1] == "succeeded"
    assert told["logs"]["on-b"] == "done\n"
    assert int(told["logs"]["join"]) == 3 * (300_000 + len("from-a\n"))


def test_output_is_followed_from_another_machine_while_it_is_written(site: Lan, tmp_path: Path) -> None:
    gates = Gates(tmp_path / "gates", "talk")
    document = tmp_path / "talk.json"
    script = f"echo before; {gates.script} echo after"
    document.write_text(json.dumps({"name": "talk", "workers": [worker("talk", "a", script)]}))
    run = at(site["c"], "submit", str(document)).strip()
    gates.arrived("talk.1")
    command = [*on(site["c"].namespace), *WATTLE, "logs", "-f", run, "talk", "--connect", GATEWAY]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as following:
        assert following.stdout is not None
        readable, _, _ = select.select([following.stdout], [], [], PATIENCE)
        assert readable, "nothing was printed while the task runs"
        assert os.read(following.stdout.fileno(), 1000) == b"before\n"
        gates.open("talk.1")
        rest, complaints = following.communicate(timeout=PATIENCE)
    assert (rest, complaints, following.returncode) == (b"after\n", b"", 0)
    gates.close()


def test_nodes_and_doctor_see_the_whole_network(site: Lan) -> None:
    nodes = json.loads(at(site["c"], "nodes", "--json"))
    nodes = nodes["nodes"] if isinstance(nodes, dict) else nodes
    assert {node["name"]: node["status"] for node in nodes} == {"a": "ready", "b": "ready", "c": "ready"}
    arguments = ("doctor", "--json", "--data", str(site["c"].network.folder), "--connect", GATEWAY)
    findings = json.loads(site["c"].network.wattle(*arguments, check=False).stdout)
    assert {finding["what"] for finding in findings if not finding["ok"]} == {
        "security"
    }  # it is one without certificates
    seen = {finding["what"]: finding["seen"] for finding in findings}
    assert (seen["coordinators"], seen["gateways"], seen["runtimes"]) == ("1 in sight", "1 in sight", "3 in sight")
    assert seen["pairs"].startswith("20 of 20 hear and ask each other")


def wrong_pairs(site: Lan) -> list[tuple[str, str]]:
    """What doctor finds wrong about pairs, and what it has people change."""
    arguments = ("doctor", "--json", "--data", str(site["c"].network.folder), "--connect", GATEWAY)
    findings = json.loads(site["c"].network.wattle(*arguments, check=False).stdout)
    return [(one["seen"], one["fix"]) for one in findings if one["what"] == "pairs" and not one["ok"]]


def test_doctor_names_the_pair_that_cannot_dial_each_other(site: Lan) -> None:
    site.part(site["a"], site["c"])
    wait_until(lambda: len(wrong_pairs(site)) == 4, "coordinator and runtime of a have lost the runtime of c", PATIENCE)
    apart = {("coordinator head", "runtime c"), ("runtime a", "runtime c")}
    found = wrong_pairs(site)
    expected = {
        f"{x} neither hears {y} nor gets an answer from it (nobody serves it)"
        for x, y in apart | {(y, x) for x, y in apart}
    }
    assert {seen for seen, _ in found} == expected
    assert all("peers relay for nobody" in fix for _, fix in found)
    site.rejoin()
    wait_until(lambda: not wrong_pairs(site), "all are together again", PATIENCE)
