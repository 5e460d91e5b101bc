"""How many heaps the C library keeps, and what is free in them.

glibc gives every thread one of its own, up to eight per CPU, and what is free in one is of no use to threads of another. An agent has two
dozen threads, nearly all of them Zenoh's, of which a few work at a time. So each rush of work (peers that meet again, copies that are
caught up with) left its most in other heaps: a coordinator grew by 1 MiB each time that it was out of sight, to 10 MiB that held nothing.
What is free between blocks that are in use stays with the process as well, until it is told to give that back: files and logs that come
and go scattered 0.1 to 0.2 MiB per 1,000 tasks over a runtime's heaps.

The end of a heap, though, glibc gives back as soon as there are twice as many bytes free as the largest block had, and has the kernel clear
the same pages for the next: up to a second of processor time at either end of 1 GB that is passed on in blocks of 4 MiB.
"""

from __future__ import annotations

import ctypes
import os

import trio

HEAPS = 2
"""Enough for the few threads that work at a time: each has small blocks of every size at hand besides, for which no heap is asked."""

GIVE_BACK_EVERY = 60.0
"""Seconds between the times that free memory is given back, which was seen to take 0.2 ms."""

KEPT = 32 << 20
"""Bytes at the end of a heap that are kept until ``GIVE_BACK_EVERY`` is over; blocks as large as this have pages of their own."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # malloc.h


def limit_heaps() -> None:
    """Have this process use no more than ``HEAPS`` and keep the ends of them, unless its environment says how many; to be called before
    threads are started.

    C libraries other than glibc have one heap for all threads, and nothing to be told.
    """
    if "MALLOC_ARENA_MAX" in os.environ or "glibc.malloc.arena_max" in os.environ.get("GLIBC_TUNABLES", ""):
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, HEAPS)
        mallopt(_M_TRIM_THRESHOLD, KEPT)
        mallopt(_M_MMAP_THRESHOLD, KEPT)


async def give_back_free_memory() -> None:
    """Let the system have the whole pages that hold nothing, every now and then, until cancelled; does nothing where glibc is not."""
    malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    while malloc_trim is not None:
        await trio.sleep(GIVE_BACK_EVERY)
        malloc_trim(0)
