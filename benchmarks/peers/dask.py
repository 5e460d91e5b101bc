"""Dask distributed: a LocalCluster of single-threaded workers, the whole graph handed over at once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager

from dask.task_spec import Task, TaskRef
from distributed import Client, LocalCluster

from benchmarks.frame import Graph
from benchmarks.peers import SLOTS, Run, main, true


@contextmanager
def start() -> Iterator[Run]:
    """A cluster without its dashboard."""
    numbers = itertools.count()
    with (
        LocalCluster(n_workers=SLOTS, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        Client(cluster) as client,
    ):

        def run(graph: Graph) -> None:
            number = next(numbers)  # keys that were never seen: a result that is there already would not be made again
            keys = [f"true-{number}-{n}" for n in range(len(graph))]
            tasks = {
                key: Task(key, true, *(TaskRef(keys[n]) for n in needs)) for key, needs in zip(keys, graph, strict=True)
            }
            client.get(tasks, keys)

        yield run


if __name__ == "__main__":
    main(start)
