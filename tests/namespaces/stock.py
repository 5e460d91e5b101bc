"""What somebody with eclipse-zenoh alone does, as a program to run on a host: ``stock.py ENDPOINT RUN`` with a document on standard input.

Submits it with a put, follows its events, and prints one JSON object when it has ended: ``status``, ``events`` (the statuses of the run in
order), and ``logs`` (standard output of every worker).
"""

from __future__ import annotations

import json
import queue
import sys

import zenoh

from tests.network.processes import stock_client


def main(endpoint: str, run: str, document: str) -> None:
    events: queue.Queue[str] = queue.Queue()

    def note(sample: zenoh.Sample) -> None:
        events.put(json.loads(sample.payload.to_bytes())["status"])

    with stock_client(endpoint) as client:
        client.session.declare_subscriber(f"wattle/default/event/runs/{run}", note)
        client.put(f"runs/{run}", document)
        seen = [events.get(timeout=30)]
        while seen[-1] not in ("succeeded", "failed", "cancelled"):
            seen.append(events.get(timeout=30))
        status = client.wait(run)["status"]
        logs = {name: client.raw(f"runs/{run}/workers/{name}/logs/stdout").decode() for name in client.workers(run)}
    print(json.dumps({"status": status, "events": seen, "logs": logs}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.stdin.read())
