"""Puts a fake in place of wattle.host in every process that has this folder on PYTHONPATH: ``wattle up`` then serves canned runs.

What a run does is said by its workflow's name: ``quick`` succeeds, ``failing`` fails, ``hanging`` goes on until it is cancelled,
``stubborn`` does not even end then.
"""

from __future__ import annotations

import signal
import sys
import types
from collections.abc import Callable, Mapping
from typing import Any


def run_agents(
    settings: Mapping[str, Any],
    *,
    ready: Callable[[list[str]], None],
    at_rest: bool = False,
    load: Callable[[], Mapping[str, Any]] | None = None,
) -> None:
    """Serves until SIGTERM, then leaves a file ``stopped``."""
    from tests.client.fake_gateway import FakeGateway, Refusal
    from wattle.errors import StoreError

    runtime = settings["runtime"]
    if (runtime.data / "broken").exists():
        raise StoreError(f"the store {runtime.data} is damaged", code="STORE_DAMAGED")
    # In Zenoh's threads too: one of those that come and go may take the signal, and then nothing wakes this one.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    with FakeGateway(runtime.data) as gateway:

        def submitted(run: str) -> None:
            gateway.set_run(run, "running")
            if run.startswith("failing"):
                gateway.set_worker(run, "a", "running")
                gateway.append_log(run, "a", b"boom\n", stream="stderr")
                gateway.set_worker(run, "a", "failed", error_message="exit status 3")
                gateway.set_run(run, "failed", error_message="a failed")
            if run.startswith("quick"):
                gateway.set_worker(run, "a", "running")
                gateway.append_log(run, "a", b"the result\n")
                gateway.finish(run)

        def answers(path: str) -> bool:
            if path.startswith("runs/stubborn") and path.endswith("/cancel"):
                raise Refusal("BUSY")
            return True

        gateway.on_submit = submitted
        gateway.before = answers
        ready([gateway.endpoint])
        signal.sigwait({signal.SIGTERM})
    (runtime.data / "stopped").write_text(f"{runtime.die_with_runtime} {runtime.stop_timeout}")


host = types.ModuleType("wattle.host")
vars(host)["run_agents"] = run_agents
sys.modules["wattle.host"] = host
