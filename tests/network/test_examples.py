"""Every example runs, on a network with the nodes that it asks for; and the recipes beside them do as they say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.network.processes import Agent, Network, StockClient, network, stock_client

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
RUNTIMES = {
    "archive": "--label disk=ssd --label site=base --resource licence=1 --resource gpus=1 --resource cpus=8 --resource memory=16GiB",
    "arm1": "--label robot=arm1 --label box=pump-7",
}
PRINTED = {  # what a worker of each prints, or how that begins
    "diamond.json": ("join", "sum 5050, sum of squares 338350\n"),
    "params.yaml": ("show", "1: Hello, Ada!\n"),
    "retry.yaml": ("after", "attempt 3: done\n"),
    "wordcount.yaml": ("report", "Words per text\n"),
    "robot.yaml": ("judge", "1 samples\n"),
    "edge.yaml": ("hand-on", ""),
    "compile.yaml": ("package", "hello\n"),
    "gpu.yaml": ("publish", ""),
}


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    secrets = tmp_path_factory.mktemp("secrets") / "secrets.toml"
    secrets.touch(mode=0o600)
    secrets.write_text('upload_key = "not for everybody"\n')
    with network({"WATTLE_SECRETS_FILE": str(secrets)}) as made:
        first = made.start("up", "archive", *RUNTIMES["archive"].split(), "--slots", "4")
        made.start("runtime", "arm1", *RUNTIMES["arm1"].split(), connect=first)
        yield made


@pytest.fixture
def gateway(net: Network) -> Agent:
    return net.agents[0]


@pytest.fixture
def client(gateway: Agent) -> Iterator[StockClient]:
    with stock_client(gateway.endpoint) as made:
        made.nodes(len(RUNTIMES))
        yield made


def test_every_document_runs(client: StockClient, tmp_path: Path) -> None:
    documents = {path.name: path for path in EXAMPLES.rglob("*") if path.suffix in (".yaml", ".json")}
    assert documents.keys() == PRINTED.keys()
    params: dict[str, dict[str, Any]] = {
        "params.yaml": {"who": "Ada", "times": 1},
        "wordcount.yaml": {"texts": str(EXAMPLES / "wordcount" / "texts")},
        "edge.yaml": {"to": str(tmp_path / "samples")},
        "compile.yaml": {"source": str(EXAMPLES / "compile" / "src")},
    }
    if shutil.which("cc") is None:
        del documents["compile.yaml"]
    runs = {
        name: client.get("runs", {"document": path.read_text(), "params": params.get(name, {})})["id"]
        for name, path in documents.items()
    }
    for name, run in runs.items():
        assert client.wait(run)["status"] == "succeeded", client.workers(run)
        worker, text = PRINTED[name]
        assert client.raw(f"runs/{run}/workers/{worker}/logs/stdout").decode().startswith(text)
    assert [path.name for path in (tmp_path / "samples").iterdir()] == [f"{runs['edge.yaml']}.gz"]
    nodes = {name: worker["node"] for name, worker in client.workers(runs["robot.yaml"]).items()}
    assert nodes == {"record": "arm1", "judge": "archive"}


def environment(gateway: Agent | None) -> dict[str, str]:
    """A shell's, in which ``wattle`` is this one and the network, if any, is found."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("WATTLE_")}
    found = {} if gateway is None else {"WATTLE_CONNECT": gateway.endpoint}
    return plain | found | {"PYTHONPATH": str(ROOT), "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}


def test_the_sweep_runs(client: StockClient, gateway: Agent) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLES / "sweep.py", "0", "1"],
        env=environment(gateway),
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[1:] == ["0 0.000", "1 0.841"]


def test_the_recipes_of_one_shell_run(client: StockClient, gateway: Agent) -> None:
    blocks = re.findall(r"^```sh\n(.*?)^```", (EXAMPLES / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    said = take([block for block in blocks if "ENDPOINT" not in block], ROOT, environment(gateway))
    assert re.match(r"nightly-\S+\n", said)
    assert said.endswith("sum 5050, sum of squares 338350\n")


def test_the_readme_s_programs_run(client: StockClient, gateway: Agent) -> None:
    programs = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    said = []
    for program in programs:
        assert '"tcp/localhost:7447"' in program
        code = program.replace("tcp/localhost:7447", gateway.endpoint)
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment(gateway), capture_output=True, text=True, check=True
        )
        said.append(done.stdout)
    assert said == ["succeeded\nhello\n\n", "succeeded\n"]


def test_the_first_steps_can_be_taken(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "first-steps.md").read_text()
    assert "/tmp/wattle-first-steps" in page
    page = page.replace("/tmp/wattle-first-steps", str(tmp_path / "there"))
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    up = blocks.index("wattle up\n")
    with network() as made:
        shell = {**environment(None), "WATTLE_DATA": str(made.folder / "d")}
        said = take(blocks[:up], tmp_path, shell)
        assert "HELLO EVERYBODY" in said
        assert "exit status 1" in said
        made.start("up", "d")
        assert take(blocks[up + 1 :], tmp_path, shell).endswith("there\n")


def take(blocks: list[str], folder: Path, environment: dict[str, str]) -> str:
    """What a shell prints that runs these blocks one after the other and stops at the first failure."""
    done = subprocess.run(
        ["sh", "-eu"], input="".join(blocks), cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done
    return done.stdout
