"""Python's garbage collector, and when it had better not run.

It looks for values that refer to each other in circles, of which Wattle makes hardly any, and walks everything that is in memory to find
them: with a workflow of 100,000 workers in it that is half of the time that taking it takes.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Without the collector, in all threads, while much is made that stays. Another thread that does the same may end it early."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
