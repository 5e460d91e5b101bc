"""Somebody is killed with SIGKILL at a step of a run's life and started again on the same folder: every step with every victim.

One network serves all cases: ``home`` makes the input and reads the output, ``node`` executes the worker ``use`` that the steps are
about. tests/network/crash.py says how somebody dies at exactly one step. Each case ends with the run as it would have been, and with a
history that tells of everything that ran.
"""

from __future__ import annotations

import hashlib
import shutil
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.namespaces.gates import Gates
from tests.network.processes import (
    Agent,
    ApiError,
    Network,
    StockClient,
    processes_under,
    stock_client,
    wait_until,
)
from wattle.runtime.serving import CHUNK

CRASH = (sys.executable, str(Path(__file__).with_name("crash.py")))
PATIENCE = 30.0
LISTENING = "00010000"  # __SO_ACCEPTCON in the flags of /proc/net/unix
PADDING = 5 * CHUNK // 2
"""Bytes of the files that pass from node to node: more than two chunks, so that a fetch can be interrupted between them."""

STEPS = {
    # step: (where it happens, what has happened)
    "asked": ("gateway", "the gateway has the submission"),
    "submitted": ("coordinator", "the coordinator has the submission; nothing is committed"),
    "committed": ("coordinator", "the run is committed; nobody is told"),
    "acknowledged": ("gateway", "the coordinator has answered; the gateway has not passed it on"),
    "assigned": ("coordinator", "the attempt is committed, and not sent"),
    "sent": ("node", "the node has the assignment; nothing is committed there"),
    "accepted": ("node", "the node has committed the assignment, and not answered"),
    "answered": ("coordinator", "the coordinator has the node's answer; it is not committed"),
    "preparing": ("node", "the node is about to put the input in place"),
    "fetching": ("node", "a part of the input has come over from the other node"),
    "starting": ("node", "the node has committed that it starts the process, and not told the spawner"),
    "spawned": ("spawner", "the process is there; the runtime does not know"),
    "started": ("node", "the node has committed that it runs, and told nobody"),
    "exited": ("spawner", "the process has ended; the runtime does not know"),
    "collecting": ("node", "the node knows that the command succeeded; its outputs are not hashed"),
    "finished": ("node", "the node has committed the finish; nobody is told, and the spawner keeps the exit"),
    "learned": ("coordinator", "the coordinator has read of the finish; it is not committed"),
    "recorded": ("coordinator", "the coordinator has committed the finish; nothing that follows is sent"),
    "passing": ("home", "a part of the output has come over to the node that reads it"),
    "final": ("coordinator", "the run's end is committed; whoever waits for it is not answered"),
}
VICTIMS = {
    "coordinator": ("coordinator",),
    "runtime": ("node",),
    "gateway": ("gateway",),
    "spawner": ("spawner",),
    "machine": ("node", "spawner"),  # as when the machine goes down: nothing of the task is left to be found
}
IDLE = "the node and its spawner know nothing of the run yet"
OVER = "the node's part is over and known: nothing there is looked at again"
LEFT_OUT = {
    **{(step, victim): IDLE for step in ("asked", "submitted", "acknowledged") for victim in ("spawner", "machine")},
    **{(step, "runtime"): IDLE for step in ("asked", "submitted")},
    **{
        (step, "spawner"): "the spawner holds nothing of the task"
        for step in ("committed", "assigned", "sent", "answered")
    },
    **{
        (step, "spawner"): "the spawner holds nothing of the task any more"
        for step in ("learned", "recorded", "passing")
    },
    ("final", "spawner"): OVER,
    ("final", "machine"): OVER,
    ("final", "runtime"): OVER,
}
LOST = {
    ("starting", "runtime"),
    *((step, victim) for step in ("starting", "spawned", "started", "exited") for victim in ("spawner", "machine")),
}
"""Where nobody is left who knows whether the process ran, or how it ended: the attempt is lost, and another follows."""
SPARED = {("starting", "spawner")}
"""Where the runtime may notice in time that the order did not reach the spawner: the new one gets it, and nothing is lost."""

ENDED = list(STEPS)[list(STEPS).index("exited") :]
"""Steps that come only when the process has ended: it is let through its gate at once; else after the victim is back."""

CASES = [(step, victim) for step in STEPS for victim in VICTIMS if (step, victim) not in LEFT_OUT]


class Site:
    """The network of all cases."""

    def __init__(self, folder: Path) -> None:
        self.net = Network(folder, {"WATTLE_LOST_AFTER": "120", "WATTLE_COMMAND_TIMEOUT": "2"})
        self.ledger = folder / "ledger"
        self.agents: dict[str, Agent] = {}
        self._roles = {"home": "runtime", "coordinator": "coordinator", "node": "runtime", "gateway": "gateway"}
        self.start("home")
        with ThreadPoolExecutor() as threads:
            list(threads.map(self.start, ["coordinator", "node", "gateway"]))
        self._killed_spawner = False

    def start(self, name: str) -> None:
        """Start an agent, or start it again."""
        home = self.agents.get("home")
        options = ("--slots", "4") if self._roles[name] == "runtime" else ()
        self.agents[name] = self.net.start(self._roles[name], name, *options, connect=home, prefix=CRASH)

    def folder(self, name: str) -> Path:
        return self.agents["node" if name == "spawner" else name].data

    def pid(self, name: str) -> int:
        return self.spawner("node") if name == "spawner" else self.agents[name].process.pid

    def spawner(self, name: str) -> int:
        """The process that a runtime's spawner says it is; 0 while there is none."""
        return int((self.folder(name) / "spawner.lock").read_text() or 0)

    def arm(self, step: str, victim: str) -> list[int]:
        """Have a victim killed at a step; the processes that will be."""
        if victim == "spawner" and self._killed_spawner:
            self.restart("node")  # one that loses spawner after spawner gives up: that is another test's
        self._killed_spawner = victim == "spawner" or (self._killed_spawner and victim not in ("runtime", "machine"))
        where = STEPS[step][0]
        pids = [self.pid(name) for name in VICTIMS[victim]]
        order = self.folder(where) / "crash"
        trap = "fetching" if step == "passing" else step
        order.with_suffix(".new").write_text(" ".join([trap, *map(str, pids)]))
        order.with_suffix(".new").replace(order)
        return pids

    def restart(self, name: str) -> None:
        self.agents[name].kill()
        self.start(name)

    def revive(self, victim: str) -> None:
        """Wait for the victim's death, and start it again; a spawner is started again by its runtime."""
        for name in VICTIMS[victim]:
            if name != "spawner":
                self.agents[name].process.wait(PATIENCE)
                self.start(name)

    @staticmethod
    def listening(agent: Agent) -> int:
        """How many sockets at an agent's endpoint somebody listens at."""
        rows = [line.split() for line in Path("/proc/net/unix").read_text().splitlines()[1:]]
        return sum(row[3] == LISTENING and row[7:] == [str(agent.data / "wattle.sock")] for row in rows)


@pytest.fixture(scope="module")
def site() -> Iterator[Callable[[], Site]]:
    """Gives the network; another one after a case that failed midway."""
    made: list[tuple[Site, Path]] = []

    def get(fresh: bool = False) -> Site:
        if fresh or not made:
            folder = Path(tempfile.mkdtemp(prefix="wtl-", dir="/tmp"))
            made.append((Site(folder), folder))
        return made[-1][0]

    yield get
    for last, folder in made:
        last.net.stop()
        shutil.rmtree(folder, ignore_errors=True)


@dataclass
class State:
    """Whether the case before this one was seen to its end."""

    whole: bool = True


STATE = State()


def document(site: Site, gates: Gates) -> dict[str, Any]:
    """make (home) -> use (node) -> then (home), each with a file that has to come over."""
    note = f'echo "$WATTLE_WORKER $WATTLE_ATTEMPT $$" >> {site.ledger}\n'

    def worker(name: str, node: str, script: str, **more: Any) -> dict[str, Any]:
        return {
            "name": name,
            "script": note + script,
            "place": {"node": node},
            "outputs": {"out": "out"},
            "kill_after": 1,
            **more,
        }

    make = f'(echo "$WATTLE_RUN"; head -c {PADDING} /dev/zero) > out'
    use = gates.script + "(echo use; cat ${inputs.data}) > out"
    then = "(echo then; cat ${inputs.data}) > out; echo over"
    return {
        "name": "life",
        "workers": [
            worker("make", "home", make),
            worker("use", "node", use, inputs={"data": "make/out"}),
            worker("then", "home", then, inputs={"data": "use/out"}),
        ],
    }


def persistently(ask: Callable[[], Any]) -> Any:
    """Ask again as a person would, while whoever should answer is dead or has just come back."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            return ask()
        except (ApiError, LookupError) as error:
            if isinstance(error, ApiError) and error.code not in ("NO_COORDINATOR", "TIMEOUT", "RUN_NOT_FOUND"):
                raise
            if time.monotonic() > deadline:
                raise
            threading.Event().wait(0.05)


def see_through(client: StockClient, run: str, submission: dict[str, Any]) -> dict[str, Any]:
    """Submit a run and wait for its end; an answer that does not come is asked for again."""
    persistently(partial(client.get, "runs", {"document": submission, "run": run}, timeout=5))
    view: dict[str, Any] = persistently(partial(client.get, f"runs/{run}?wait=20", timeout=25))
    return view


@pytest.mark.parametrize(("step", "victim"), CASES, ids=[f"{step}-{victim}" for step, victim in CASES])
def test_a_run_survives(step: str, victim: str, site: Callable[..., Site], tmp_path: Path) -> None:
    here = site(fresh=not STATE.whole)
    STATE.whole = False
    run = f"{step}-{victim}"
    gates = Gates(tmp_path / "gates", "use")
    here.ledger.write_text("")
    with stock_client(here.agents["home"].endpoint) as client, ThreadPoolExecutor(1) as thread:
        persistently(partial(client.nodes, 2))
        victims = here.arm(step, victim)
        if step in ENDED:
            open_all(gates)
        ended = thread.submit(see_through, client, run, document(here, gates))
        wait_until(lambda: ended.done() or not any(map(is_alive, victims)), f"{victim} dies at {step}", PATIENCE)
        assert not any(map(is_alive, victims)), f"nobody came to {step}: {ended.result()}"
        here.revive(victim)
        if step not in ENDED:
            open_all(gates)
        assert ended.result(PATIENCE + 20)["status"] == "succeeded"
        history = persistently(partial(client.workers, run))
    if (step, victim) in SPARED and len(history["use"]["attempts"]) == 1:
        check_history(history, lost=False)
    else:
        check_history(history, lost=(step, victim) in LOST)
    check_ledger(here, history)
    check_output(run, history)
    check_nothing_is_left(here, victims)
    gates.close()
    STATE.whole = True


def open_all(gates: Gates) -> None:
    for attempt in ("use.1", "use.2"):
        gates.open(attempt)


def is_alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def check_history(history: dict[str, dict[str, Any]], *, lost: bool) -> None:
    """One attempt of each worker; two of the one whose process was lost, and the first of them says so, and claims no result."""
    statuses = {name: [a["status"] for a in worker["attempts"]] for name, worker in history.items()}
    assert statuses["make"] == ["succeeded"]
    assert statuses["use"] == (["lost", "succeeded"] if lost else ["succeeded"])
    assert statuses["then"] == ["returned"] * (len(statuses["then"]) - 1) + ["succeeded"]  # its input was out of reach
    if lost:
        first = history["use"]["attempts"][0]
        assert (first["exit_code"], first["signal"]) == (None, None)
        assert "spawner" in first["error_message"]
        assert "unknown" in first["error_message"]


def check_ledger(site: Site, history: dict[str, dict[str, Any]]) -> None:
    """What ran is what the history tells of: no attempt twice, none unknown, and none that succeeded without having run."""
    ran = Counter((worker, int(attempt)) for worker, attempt, _ in map(str.split, site.ledger.read_text().splitlines()))
    told = {(name, a["attempt"]): a["status"] for name, worker in history.items() for a in worker["attempts"]}
    assert set(ran.values()) == {1}
    assert set(ran) <= set(told)
    assert set(ran) >= {attempt for attempt, status in told.items() if status == "succeeded"}
    assert not any(told[attempt] == "returned" for attempt in ran)


def check_output(run: str, history: dict[str, dict[str, Any]]) -> None:
    content = b"then\nuse\n" + run.encode() + b"\n" + bytes(PADDING)
    result = history["then"]["results"]["out"]
    assert (result["size"], result["digest"]) == (len(content), hashlib.sha256(content).hexdigest())


def check_nothing_is_left(site: Site, victims: list[int]) -> None:
    """Of the dead: no process, no lock, no socket; of the tasks: no process."""
    wait_until(
        lambda: (
            {*processes_under(site.net.folder)}
            == {*(a.process.pid for a in site.agents.values()), *map(site.spawner, ("home", "node"))}
        ),
        "only agents and their spawners are there",
    )
    tasks = [int(line.split()[2]) for line in site.ledger.read_text().splitlines()]
    assert not any(map(is_alive, [*victims, *tasks]))
    for agent in site.agents.values():
        assert site.listening(agent) == 1
        assert (agent.data / "wattle.lock").read_text() == str(agent.process.pid)


def test_nothing_of_all_that_is_left_in_the_end(site: Callable[..., Site]) -> None:
    """The agents of the table are told to stop: each ends by itself, with its spawner and its sockets."""
    here = site(fresh=not STATE.whole)
    for agent in reversed(here.agents.values()):
        agent.process.terminate()
    for agent in here.agents.values():
        assert agent.process.wait(PATIENCE) == 0, agent.log[-2000:]
    wait_until(lambda: not processes_under(here.net.folder), "no process is left")
    assert [name for name, agent in here.agents.items() if here.listening(agent)] == []
    STATE.whole = False
