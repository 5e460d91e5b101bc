"""From two fresh machines to a secured cluster of two nodes, by the commands in docs/operations.md; a third machine stays outside."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from functools import partial
from pathlib import Path

import pytest

from tests.namespaces.hosts import lan, together

pytestmark = pytest.mark.namespaces

DOCS = Path(__file__).parents[2] / "docs" / "operations.md"
DOCUMENT = {
    "name": "pass",
    "workers": [
        {"name": "a", "script": "echo hello >$WATTLE_OUTPUT_O", "outputs": {"o": "o"}, "place": {"node": "machine2"}},
        {"name": "b", "script": "cat $WATTLE_INPUT_I", "inputs": {"i": "a/o"}, "place": {"node": "machine1"}},
    ],
}


def commands() -> list[tuple[str, list[str]]]:
    """The commands of the section, each with its machine."""
    section = DOCS.read_text().split("## Several machines\n")[1]
    block = section.split("```sh\n")[1].split("```")[0]
    return [(machine, shlex.split(line)) for machine, line in re.findall(r"(?m)^(\w+)\$ (.*)$", block)]


def test_two_fresh_machines_are_a_secured_cluster_in_four_commands() -> None:
    (_, init), (_, copy), *joins = told = commands()
    assert len(told) <= 4
    with lan("machine1", "machine2", "stranger", environment={"WATTLE_INSECURE": ""}) as made:
        homes = {name: host.network.folder for name, host in made.hosts.items()}
        here = [re.sub(r"10\.0\.0\.(\d)", lambda at: made[f"machine{at[1]}"].address, word) for word in init]
        here[here.index("cluster", 2)] = str(homes["machine1"] / "cluster")
        made["machine1"].network.wattle(*here[1:])
        assert copy[0] == "scp"
        shutil.copy(homes["machine1"] / copy[1], homes[copy[2].rstrip(":")])
        assert [words[:2] for _, words in joins] == [["wattle", "join"]] * 2
        together(
            *(
                partial(made[machine].network.start, "join", machine, str(homes[machine] / words[2]))
                for machine, words in joins
            )
        )

        data = ("--data", str(homes["machine1"] / "machine1"))
        document = homes["machine1"] / "pass.json"
        document.write_text(json.dumps(DOCUMENT))
        done = made["machine1"].network.wattle("run", str(document), *data, timeout=90)
        assert "hello" in done.stdout, done.stdout
        shown = json.loads(
            made["machine2"].network.wattle("nodes", "--json", "--data", str(homes["machine2"] / "machine2")).stdout
        )
        assert sorted(node["name"] for node in shown) == ["machine1", "machine2"]

        address = made["machine1"].address
        for protocol in ("tcp", "tls"):
            refused = made["stranger"].network.wattle("nodes", "--connect", f"{protocol}/{address}:7447", check=False)
            assert refused.returncode == 3, refused.stdout
