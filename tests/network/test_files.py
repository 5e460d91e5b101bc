"""Files between nodes that share no folder: each runtime a process with its own data folder, and its own view of working folders."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.network.processes import Agent, Network, StockClient, network, stock_client

LARGE = 200_000_000  # bytes
MEMORY_MAX = 150 << 20  # bytes; a runtime that read the large file into memory would need more for that alone

JSON_FORM = """{"name": "p", "working_dir": "/tmp/p", "workers": [
 {"name": "fetch", "command": "python fetch.py", "args": ["--source", "db"], "env_vars": {"A": "1"}, "outputs": {"raw": "raw.json"}},
 {"name": "use", "workflow_name": "p", "command": "python use.py", "inputs": {"data": "fetch/raw"}, "outputs": {"out": "/tmp/p/out.json"}}]}
"""
FETCH = "import os, sys\nopen('raw.json', 'w').write(repr([sys.argv[1:], os.environ['A']]))\n"
USE = """\
import os
data = open(os.environ['WATTLE_INPUT_DATA']).read()
open(os.environ['WATTLE_OUTPUT_OUT'], 'w').write(data + ' from ' + os.environ['WATTLE_INPUT_DATA'])
"""


@dataclass
class Nodes:
    """Two runtimes, each with its own folder behind ``shared``, where a document's programs are; ``behind`` is by node."""

    one: Agent
    two: Agent
    shared: Path
    behind: dict[str, Path]


@pytest.fixture(scope="module")
def net() -> Iterator[Network]:
    """A coordinator with a gateway beside it; ``python`` is the one that runs the tests."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    with network({"PATH": path}) as made:
        coordinator = made.start("coordinator")
        made.start("gateway", connect=coordinator)
        yield made


@pytest.fixture(scope="module")
def nodes(net: Network) -> Nodes:
    shared = net.folder / "p"
    shared.mkdir()
    agents, behind = [], {}
    for name in ("n1", "n2"):
        mine = behind[name] = net.folder / f"p-{name}"
        mine.mkdir()
        (mine / "fetch.py").write_text(FETCH)
        (mine / "use.py").write_text(USE)
        agents.append(net.start("runtime", name, connect=net.agents[0], prefix=own_view(shared, mine)))
    with stock_client(net.agents[1].endpoint) as client:
        client.nodes(2)
    return Nodes(*agents, shared, behind)


@pytest.fixture
def client(net: Network) -> Iterator[StockClient]:
    with stock_client(net.agents[1].endpoint) as made:
        yield made


def own_view(folder: Path, behind: Path) -> list[str]:
    """A command prefix: for the process and its children, ``behind`` is what is found at ``folder``. None where that is not allowed."""
    unshare = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    prefix = [*unshare, "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(behind), str(folder)]
    allowed = (
        shutil.which("unshare") and not subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    )
    return prefix if allowed else []


@pytest.fixture
def apart(nodes: Nodes) -> Nodes:
    """The nodes, if each does have its own view of the shared folder."""
    if not own_view(nodes.shared, nodes.behind["n1"]):
        pytest.skip("this system does not let a process have its own view of a folder (unshare --mount)")
    for behind in nodes.behind.values():
        (behind / "raw.json").unlink(missing_ok=True)
        (behind / "out.json").unlink(missing_ok=True)
        shutil.rmtree(behind / "inputs", ignore_errors=True)
    return nodes


def on(node: str, name: str, script: str, inputs: dict[str, str] | None = None, **outputs: str) -> dict[str, Any]:
    """A worker that has to run on a node."""
    return {
        "name": name,
        "script": script,
        "inputs": inputs or {},
        "outputs": outputs,
        "place": {"node": node},
    }


def private(agent: Agent, run: str, worker: str, path: str) -> Path:
    """A path in the private folder of a worker's first attempt."""
    return agent.data / "work" / run / f"{worker}.1" / path


def test_a_join_gets_the_input_that_its_node_lacks(client: StockClient, nodes: Nodes) -> None:
    one, two = nodes.one, nodes.two
    workers = [
        on("n1", "top", "head -c 700001 /dev/urandom > top.bin", raw="top.bin"),
        on("n1", "left", 'cat "${inputs.x}" "${inputs.x}" > deep/left.bin', {"x": "top/raw"}, out="deep/left.bin"),
        on("n2", "right", 'tac "${inputs.x}" > "${outputs.out}"', {"x": "top/raw"}, out="right.bin"),
        on("n2", "join", 'cat "${inputs.l}" "${inputs.r}" > all', {"l": "left/out", "r": "right/out"}, out="all"),
    ]
    run = client.run({"name": "diamond", "workers": workers})["id"]
    views = client.workers(run)
    assert {name: (w["status"], w["node"]) for name, w in views.items()} == {
        "top": ("succeeded", "n1"),
        "left": ("succeeded", "n1"),
        "right": ("succeeded", "n2"),
        "join": ("succeeded", "n2"),
    }, views

    top, left = (
        private(one, run, "top", "top.bin").read_bytes(),
        private(one, run, "left", "deep/left.bin").read_bytes(),
    )
    right = private(two, run, "right", "right.bin").read_bytes()
    assert (len(top), left) == (700001, top + top)
    assert private(two, run, "right", "inputs/top/top.bin").read_bytes() == top
    assert private(two, run, "join", "inputs/left/deep/left.bin").read_bytes() == left
    joined = private(two, run, "join", "all").read_bytes()
    assert joined == left + right
    (result,) = views["join"]["results"].values()
    assert result == {"path": "all", "digest": hashlib.sha256(joined).hexdigest(), "size": len(joined)}
    assert not list((one.data / "blobs").rglob("*/*"))  # the first node never needed anything of the second


def json_form(nodes: Nodes) -> dict[str, Any]:
    """The document of the design, word for word but for its folder."""
    document: dict[str, Any] = json.loads(JSON_FORM.replace("/tmp/p", str(nodes.shared)))
    return document


def test_the_json_form_works_unchanged_on_two_nodes(client: StockClient, apart: Nodes) -> None:
    run = client.run(json_form(apart))
    workers = client.workers(run["id"])
    assert run["status"] == "succeeded", workers
    out = (apart.behind[workers["use"]["node"]] / "out.json").read_text()
    assert out.startswith("[['--source', 'db'], '1'] from ")
    assert workers["use"]["results"]["out"]["path"] == str(apart.shared / "out.json")
    assert list(apart.shared.iterdir()) == []  # neither node wrote outside of its own view


@pytest.mark.parametrize("absolute", [True, False])
def test_an_input_in_a_working_folder_crosses_nodes(client: StockClient, apart: Nodes, absolute: bool) -> None:
    document = json_form(apart)
    fetch, use = document["workers"]
    fetch["place"], use["place"] = {"node": "n1"}, {"node": "n2"}
    if absolute:
        fetch["outputs"]["raw"] = str(apart.shared / "raw.json")
    run = client.run(document)
    assert run["status"] == "succeeded", client.workers(run["id"])
    found = "raw.json" if absolute else "inputs/fetch/raw.json"
    first, second = apart.behind["n1"], apart.behind["n2"]
    raw = (first / "raw.json").read_bytes()
    assert (second / found).read_bytes() == raw
    assert (second / "out.json").read_text() == f"{raw.decode()} from {apart.shared / found}"
    assert sorted(p.name for p in first.iterdir()) == ["fetch.py", "raw.json", "use.py"]


def memory_peak(agent: Agent) -> int:
    """The most memory a process had resident so far, in bytes."""
    status = Path(f"/proc/{agent.process.pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) << 10


def test_a_large_file_travels_with_flat_memory(
    client: StockClient, nodes: Nodes, record_property: Callable[[str, object], None]
) -> None:
    both = (nodes.one, nodes.two)
    before = [memory_peak(node) for node in both]
    workers = [
        on("n1", "make", f"head -c {LARGE} /dev/urandom > big", big="big"),
        on("n2", "check", 'sha256sum < "${inputs.big}"', {"big": "make/big"}),
    ]
    run = client.run({"name": "large", "workers": workers})
    views = client.workers(run["id"])
    assert run["status"] == "succeeded", views
    result = views["make"]["results"]["big"]
    assert result["size"] == LARGE
    log = client.raw(f"runs/{run['id']}/workers/check/logs/stdout").decode()
    assert log.split()[0] == result["digest"]
    after = [memory_peak(node) for node in both]
    told = {node.name: f"{b >> 20} -> {a >> 20} MiB" for node, b, a in zip(both, before, after, strict=True)}
    record_property("memory_peak", told)
    print(f"{LARGE >> 20} MiB from n1 to n2; peak memory before and after: {told}")
    assert max(after) < MEMORY_MAX, told
