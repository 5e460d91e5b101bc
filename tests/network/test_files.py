"""Working folders and absolute paths on two nodes without a shared file system: each has its own view of the document's folder."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.network.processes import StockClient, network, stock_client

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
    """Two nodes that both find a folder of their own at ``shared``: ``behind``, by node."""

    client: StockClient
    shared: Path
    behind: dict[str, Path]


@pytest.fixture(scope="module")
def nodes() -> Iterator[Nodes]:
    path = os.pathsep.join(
        [str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)]
    )  # where ``python`` is
    with network({"PATH": path}) as net:
        shared = net.folder / "p"
        behind = {name: net.folder / f"p-{name}" for name in ("n1", "n2")}
        for folder in (shared, *behind.values()):
            folder.mkdir()
        prefixes = {name: own_view(shared, folder) for name, folder in behind.items()}
        coordinator = net.start("coordinator")
        net.start("gateway", connect=coordinator)
        for name, prefix in prefixes.items():
            net.start("runtime", name, connect=coordinator, prefix=prefix)
        with stock_client(coordinator.endpoint) as client:
            client.nodes(2)
            yield Nodes(client, shared, behind)


def own_view(folder: Path, behind: Path) -> list[str]:
    """A command prefix: the process and its children find ``behind`` at ``folder``. Skips where that is not allowed."""
    unshare = ["unshare", "--mount", *(["--map-root-user"] if os.getuid() else [])]
    prefix = [*unshare, "sh", "-c", 'mount --bind "$0" "$1" && shift && exec "$@"', str(behind), str(folder)]
    if (
        shutil.which("unshare") is None
        or subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode
    ):
        pytest.skip("this system does not let a process have its own view of a folder (unshare --mount)")
    return prefix


@pytest.fixture
def document(nodes: Nodes) -> dict[str, Any]:
    """The document of the design, word for word but for its folder, where each node has nothing but the programs."""
    for folder in nodes.behind.values():
        shutil.rmtree(folder / "inputs", ignore_errors=True)
        for file in folder.iterdir():
            file.unlink()
        (folder / "fetch.py").write_text(FETCH)
        (folder / "use.py").write_text(USE)
    found: dict[str, Any] = json.loads(JSON_FORM.replace("/tmp/p", str(nodes.shared)))
    return found


def test_the_json_form_works_unchanged_on_two_nodes(nodes: Nodes, document: dict[str, Any]) -> None:
    run = nodes.client.run(document)
    workers = nodes.client.workers(run["id"])
    assert run["status"] == "succeeded", workers
    out = (nodes.behind[workers["use"]["node"]] / "out.json").read_text()
    assert out.startswith("[['--source', 'db'], '1'] from ")
    assert workers["use"]["results"]["out"]["path"] == str(nodes.shared / "out.json")
    assert list(nodes.shared.iterdir()) == []  # neither node wrote outside of its own view


@pytest.mark.parametrize("absolute", [True, False])
def test_an_input_in_a_working_folder_crosses_nodes(nodes: Nodes, document: dict[str, Any], absolute: bool) -> None:
    fetch, use = document["workers"]
    fetch["place"], use["place"] = {"node": "n1"}, {"node": "n2"}
    if absolute:
        fetch["outputs"]["raw"] = str(nodes.shared / "raw.json")
    run = nodes.client.run(document)
    assert run["status"] == "succeeded", nodes.client.workers(run["id"])
    found = "raw.json" if absolute else "inputs/fetch/raw.json"
    first, second = nodes.behind["n1"], nodes.behind["n2"]
    raw = (first / "raw.json").read_bytes()
    assert (second / found).read_bytes() == raw
    assert (second / "out.json").read_text() == f"{raw.decode()} from {nodes.shared / found}"
    assert sorted(p.name for p in first.iterdir()) == [
        "fetch.py",
        "raw.json",
        "use.py",
    ]  # of the second's, nothing came here
