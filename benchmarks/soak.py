"""A network under a steady load for a long time: does it keep more and more of anything? ``python -m benchmarks.soak [--minutes M]``.

Two coordinators, two runtimes and a gateway, each a process of its own. Clients submit fans, chains and runs that pass files on,
cancel, let tasks fail and retry, follow logs, wait and watch, come and go; each does its part once per period, so that the load is
the same at all times. Every few seconds the memory, descriptors, threads and children of every process and the size of the stores
are read and written to a CSV file. ``VERDICT`` is the rule by which a series counts as flat.

Some memory is bounded and grows until it is full: 2 MiB of pages per store, 4,000 ended runs and workers in each runtime (0.1 kB each),
1,000 changed rows in each coordinator. ``--fill`` runs tasks first, should that be taken for a leak.
"""

from __future__ import annotations

import argparse
import csv
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.agents import agent, child
from benchmarks.series import GROWS, VERDICT, Series, draw, table
from wattle import Client
from wattle.errors import WattleError

NAMES = ("coordinator1", "coordinator2", "runtime1", "runtime2", "gateway1")
FAN = 1_000
"""Tasks of a run that fills."""

PATIENCE = 120.0
"""Seconds until a run counts as stuck."""

_PAGE = os.sysconf("SC_PAGE_SIZE")
_MIB = 1 << 20

Document = dict[str, Any]


@dataclass(slots=True)
class Load:
    """What all clients did: finished tasks (attempts), and what went wrong."""

    door: str
    tasks: int = 0
    wrong: list[str] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def ran(self, client: Client, run: str, tasks: int, status: str = "succeeded") -> None:
        """Wait for a run's end, which must be as said; it took so many tasks."""
        view = client.wait(run, PATIENCE)
        if view.status != status:
            raise WattleError(f"run {run} is {view.status} and not {status}: {view.error_message}")
        with self._lock:
            self.tasks += tasks

    def repeat(self, step: Callable[[Load, Client], None], period: float) -> None:
        """Do something once per period, in seconds, until stopped; a client of its own for each kind of thing."""
        with Client(self.door, timeout=PATIENCE) as client:
            due = time.monotonic()
            while not self.stop.wait(max(0.0, due - time.monotonic())):
                due = max(due + period, time.monotonic())  # what could not be done in time is not made up for
                try:
                    step(self, client)
                except WattleError as error:
                    self.wrong.append(f"{step.__name__}: {error}")


def fan(load: Load, client: Client) -> None:
    """Twenty tasks at once."""
    workers = [{"name": f"w{n}", "command": "true"} for n in range(20)]
    load.ran(client, client.submit({"name": "fan", "workers": workers}).id, 20)


def chain(load: Load, client: Client) -> None:
    """Ten tasks, each after the one before."""
    workers = [{"name": f"w{n}", "command": "true", "needs": [f"w{n - 1}"] if n else []} for n in range(10)]
    load.ran(client, client.submit({"name": "chain", "workers": workers}).id, 10)


def files(load: Load, client: Client) -> None:
    """A file that is made anew on one node and read on the other."""
    make = "head -c 200000 /dev/urandom > out"
    workers: list[Document] = [
        {"name": "make", "script": make, "outputs": {"out": "out"}, "place": {"node": "runtime1"}},
        {"name": "read", "script": "wc -c < ${inputs.in}", "inputs": {"in": "make/out"}, "place": {"node": "runtime2"}},
    ]
    load.ran(client, client.submit({"name": "files", "workers": workers}).id, 2)


def cancel(load: Load, client: Client) -> None:
    """A run that would take an hour, cancelled once it runs."""
    run = client.submit({"name": "cancel", "workers": [{"name": "w", "command": "sleep 3600"}]}).id
    for _ in client.watch(run):
        if client.worker(run, "w").status == "running":
            break
    client.cancel(run)
    load.ran(client, run, 1, "cancelled")


def retry(load: Load, client: Client) -> None:
    """A task that fails twice: tried again by its worker's own rule, then on request.

    Where the machine is so busy that its owner is missed, the run is adopted, and the attempts of whoever adopts it have higher numbers.
    """
    worker = {"name": "w", "script": 'test "$WATTLE_ATTEMPT" -gt 2', "retries": {"max": 1, "delay": 0.1}}
    run = client.submit({"name": "retry", "workers": [worker]}).id
    view = client.wait(run, PATIENCE)
    if view.status == "succeeded" and view.epoch > 1:
        load.ran(client, run, 2)
        return
    load.ran(client, run, 2, "failed")
    client.retry(run)
    load.ran(client, run, 1)


def logs(load: Load, client: Client) -> None:
    """Output followed while it comes."""
    script = "for n in 1 2 3 4 5; do echo line $n; sleep 0.1; done"
    run = client.submit({"name": "logs", "workers": [{"name": "w", "script": script}]}).id
    read = b"".join(client.logs(run, "w", follow=True))
    if read.count(b"\n") != 5:
        raise WattleError(f"the log of run {run} was followed to {read!r}")
    load.ran(client, run, 1)


def watch(load: Load, client: Client) -> None:
    """Every change of a run watched to its end."""
    workers = [{"name": f"w{n}", "command": "sleep 0.2"} for n in range(3)]
    run = client.submit({"name": "watch", "workers": workers}).id
    for _ in client.watch(run):
        pass
    load.ran(client, run, 3)


def visit(load: Load, client: Client) -> None:
    """Somebody comes, looks at the newest runs and the nodes, asks for something that is not there, and goes."""
    with Client(load.door) as visitor:
        next(iter(visitor.runs()), None)
        list(visitor.nodes())
        try:
            visitor.run("no-such-run")
        except WattleError as error:
            if error.code != "RUN_NOT_FOUND":
                raise


STEPS: dict[Callable[[Load, Client], None], float] = {
    fan: 2.0,
    chain: 2.0,
    files: 2.0,
    cancel: 3.0,
    retry: 3.0,
    logs: 3.0,
    watch: 3.0,
    visit: 3.0,
}
"""What is done, and the seconds from one time to the next."""


# --- what is read ---------------------------------------------------------------------------------------------------------


def sample(folder: Path, pids: dict[str, int]) -> dict[str, float]:
    """One reading of everything, by ``<process>.<what>``."""
    read: dict[str, float] = {}
    for name, pid in pids.items():
        process = Path(f"/proc/{pid}")
        read[f"{name}.rss"] = int((process / "statm").read_text().split()[1]) * _PAGE / _MIB
        read[f"{name}.fds"] = len(os.listdir(process / "fd"))
        read[f"{name}.threads"] = len(os.listdir(process / "task"))
        if (folder / name).is_dir() and name != "gateway1":
            read[f"{name}.store"] = sum(file.stat().st_size for file in (folder / name).glob("*.db*")) / _MIB
    parents = {pid: name for name, pid in pids.items()}
    for name, count in _children(parents).items():
        read[f"{name}.processes"] = count
    return read


def _children(parents: dict[int, str]) -> dict[str, int]:
    """How many children each process has, zombies included."""
    counts = dict.fromkeys(parents.values(), 0)
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended meanwhile
            if parent in parents:
                counts[parents[parent]] += 1
    return counts


# --- the program ----------------------------------------------------------------------------------------------------------


@contextmanager
def network(place: Path) -> Iterator[tuple[Path, str, dict[str, int]]]:
    """The agents: their folder, the gateway's endpoint, and process numbers by name."""
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="wtls-", dir=place))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        pids: dict[str, int] = {}
        first = door = ""
        for name in NAMES:
            pids[name], door = stack.enter_context(agent(folder, name.rstrip("12"), first or None, name=name))
            first = first or door
        with Client(door, timeout=PATIENCE) as client:
            deadline = time.monotonic() + PATIENCE
            while sum(node.status == "ready" for node in client.nodes()) < 2:
                if time.monotonic() > deadline:
                    raise WattleError("the runtimes are not seen; the network is broken")
        pids |= {f"spawner{n}": child(pids[f"runtime{n}"]) for n in (1, 2)}
        yield folder, door, pids


def fill(door: str, tasks: int) -> None:
    """Run so many tasks as fast as it goes, in fans."""
    workers = [{"name": f"w{n}", "command": "true"} for n in range(FAN)]
    with Client(door, timeout=PATIENCE) as client:
        for _ in range(-(-tasks // FAN)):
            load = Load(door)
            load.ran(client, client.submit({"name": "fill", "workers": workers}).id, FAN)


def soak(place: Path, seconds: float, every: float, file: Path, filling: int) -> tuple[Series, list[str]]:
    """Load a network for so long and sample it; also writes each sample to ``file``. Returns the samples and what went wrong.

    ``filling`` tasks are run before that.
    """
    with network(place) as (folder, door, pids), file.open("w", newline="") as out:
        fill(door, filling)
        load, series, writer = Load(door), Series(), None
        threads = [threading.Thread(target=load.repeat, args=step) for step in STEPS.items()]
        for thread in threads:
            thread.start()
        began = time.monotonic()
        try:
            while (now := time.monotonic() - began) < seconds:
                read = {"seconds": round(now, 1), "tasks": load.tasks} | sample(folder, pids)
                series.add(read)
                if writer is None:
                    writer = csv.DictWriter(out, list(read))
                    writer.writeheader()
                writer.writerow({name: round(value, 3) for name, value in read.items()})
                out.flush()
                time.sleep(every)
        finally:
            load.stop.set()
            for thread in threads:
                thread.join()
    return series, load.wrong


def main(arguments: list[str] | None = None) -> int:
    """Soak, judge, draw; 0 when every series is flat and nothing went wrong."""
    parser = argparse.ArgumentParser("python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (30)")
    parser.add_argument("--fill", type=int, default=0, help="tasks to run first, to fill what is bounded (0)")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples (5)")
    parser.add_argument("--folder", type=Path, default=Path("/tmp"), help="where all data goes; keep it short (/tmp)")
    parser.add_argument("--csv", type=Path, default=Path("soak.csv"), help="where samples go (soak.csv)")
    parser.add_argument("--svg", type=Path, help="draw the samples there")
    options = parser.parse_args(arguments)
    print(", ".join(f"{name} {value}" for name, value in report.machine().items()) + "\n", flush=True)
    try:
        series, wrong = soak(options.folder, options.minutes * 60, options.every, options.csv, options.fill)
    except (WattleError, OSError) as error:
        print(f"not measured: {error}", file=sys.stderr)
        return 1
    print(table(series))
    print(f"\n{VERDICT}")
    for problem in wrong:
        print(f"went wrong: {problem}", file=sys.stderr)
    if options.svg is not None:
        options.svg.write_text(draw(series))
    return 1 if wrong or GROWS in table(series) else 0


if __name__ == "__main__":
    sys.exit(main())
