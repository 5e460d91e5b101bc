"""Ray: a cluster on this machine, a remote function per task, results passed as references."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray

from benchmarks.frame import Graph
from benchmarks.peers import SLOTS, Run, main, true

_STORE = 100 << 20  # bytes; nothing is kept in it here


@contextmanager
def start() -> Iterator[Run]:
    """A cluster without its dashboard."""
    ray.init(
        num_cpus=SLOTS,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=_STORE,
        _temp_dir=os.path.abspath("ray"),
    )
    task = ray.remote(true)

    def run(graph: Graph) -> None:
        made: list[Any] = []
        for needs in graph:
            made.append(task.remote(*(made[n] for n in needs)))
        ray.get(made)

    yield run
    ray.shutdown()


if __name__ == "__main__":
    main(start)
