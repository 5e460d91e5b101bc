"""HyperQueue: a LocalCluster (its server and worker are threads of this very process), a job per graph, a program per task.

Its client looks once a second whether a job has ended, which would say nothing of the scheduler, and the Python package gives out no
times of the server. So the look is had every 2 ms here: the client's own question, broken off when the job has not ended yet. Each
task has files for its output, as by default, and no folder of its own.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig

from benchmarks.frame import Graph
from benchmarks.peers import SLOTS, Run, main

_LOOK = 0.002


class _NotYet(Exception):
    """Breaks off the client's own wait."""


@contextmanager
def start() -> Iterator[Run]:
    """A server and a worker, with their files in the working directory."""
    with LocalCluster(server_dir=os.path.abspath("server"), worker_config=WorkerConfig(cores=SLOTS)) as cluster:
        client = cluster.client()

        def run(graph: Graph) -> None:
            job = Job()
            made: list[Any] = []
            for needs in graph:
                made.append(job.program(["/bin/true"], deps=[made[n] for n in needs]))
            submitted = client.submit(job)
            while not _ended(client, submitted):
                time.sleep(_LOOK)

        yield run


def _ended(client: Any, submitted: Any) -> bool:
    def look(jobs: Any) -> None:
        if not all(job["completed"] for job in jobs.values()):
            raise _NotYet

    try:
        failed = client.connection.wait_for_jobs((submitted.id,), look)
    except _NotYet:
        return False
    if failed:
        raise RuntimeError(f"jobs {failed} failed")
    return True


if __name__ == "__main__":
    main(start)
