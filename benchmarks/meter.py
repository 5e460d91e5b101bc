"""An agent with meters in it: where its CPU time goes, by part. ``python -m benchmarks.meter FILE ROLE OPTION...``

Runs ``wattle ROLE OPTION...`` and writes to FILE, at SIGUSR1, the CPU seconds of the main thread so far: a JSON object of parts, with
how often each was entered. What is nested counts for the inner part alone. Meters cost about 2 us a call, which is in the numbers.
"""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections import defaultdict
from collections.abc import Callable, Iterable
from importlib import import_module
from pathlib import Path
from time import thread_time
from typing import Any

PARTS = {
    "core": ("wattle.core.coordinator:CoordinatorCore.handle", "wattle.core.runtime:RuntimeCore.handle"),
    "rows written": (
        "wattle.store.coordinator:CoordinatorStore.save",
        "wattle.store.runtime:RuntimeStore.save",
        "wattle.store.runtime:RuntimeStore.save_logs",
    ),
    "messages encoded and decoded": ("wattle.protocol.messages:encode", "wattle.protocol.messages:decode"),
    "puts": ("wattle.bus.zenoh:ZenohBus.put",),
    "lanes from zenoh": ("wattle.bus.lanes:Lane._drain",),
    "commands laid out": ("wattle.runtime.spawning:Spawning.lay_out",),
    "folders made": ("wattle.runtime.spawning:Spawning._make_folders",),
    "spawner's messages": ("wattle.runtime.processes:Processes._events", "wattle.runtime.processes:Processes.spawn"),
    "commit, and the rest of a step": (
        "wattle.coordinator.agent:CoordinatorAgent._step",
        "wattle.runtime.agent:RuntimeAgent._step",
    ),
}


class Meter:
    """Exclusive CPU seconds and calls by part, of one thread."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        self.calls: dict[str, int] = defaultdict(int)
        self._inner: list[float] = []  # of each call under way: what went into calls within it

    def wrap(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A function that does the same and is counted for ``part``."""

        @functools.wraps(function)
        def metered(*args: Any, **kwargs: Any) -> Any:
            self._inner.append(0.0)
            began = thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                took = thread_time() - began
                self.spent[part] += took - self._inner.pop()
                self.calls[part] += 1
                if self._inner:
                    self._inner[-1] += took

        return metered

    def install(self, part: str, places: Iterable[str]) -> None:
        """Put a meter around each ``module:name`` or ``module:Class.name``, wherever that has been imported to."""
        for place in places:
            module, _, path = place.partition(":")
            holder: Any = import_module(module)
            *classes, name = path.split(".")
            for one in classes:
                holder = getattr(holder, one)
            function = getattr(holder, name)
            metered = self.wrap(part, function)
            holders = [holder] if classes else [m for m in sys.modules.values() if vars(m).get(name) is function]
            for found in holders:
                setattr(found, name, metered)


def main(file: Path, arguments: list[str]) -> None:
    """Run an agent with meters."""
    for role in ("coordinator", "runtime"):  # so that every place that imports a function by name is there to be found
        import_module(f"wattle.{role}.agent")
        import_module(f"wattle.store.{role}")
    meter = Meter()
    for part, places in PARTS.items():
        meter.install(part, places)

    def dump(number: int, frame: object) -> None:
        new = file.with_suffix(".new")
        new.write_text(json.dumps({"all": thread_time(), "parts": meter.spent, "calls": meter.calls}))
        os.replace(new, file)

    signal.signal(signal.SIGUSR1, dump)
    from wattle.cli.app import main as wattle

    sys.argv = ["wattle", *arguments]
    wattle()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
