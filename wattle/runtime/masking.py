"""Blanking secrets in output: each becomes as many asterisks, so that every offset stays what it is.

A secret may lie across the border of two pieces, or not be written to its end yet. So more is read than was asked for, on both sides; of
a file that may still grow, an end that a secret begins with is not given before it is known how it goes on.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator


class Mask:
    """Blanks some values; does nothing where there are none."""

    def __init__(self, values: Collection[bytes]) -> None:
        self.values = frozenset(value for value in values if value)
        self._firsts = {value[0] for value in self.values}
        self._margin = max(map(len, self.values), default=1) - 1

    def read(self, descriptor: int, offset: int, limit: int, *, growing: bool) -> bytes:
        """Bytes of a file from ``offset`` on, at most ``limit``, with no value in sight."""
        if not self.values:
            return os.pread(descriptor, limit, offset)
        start = max(offset - self._margin, 0)
        size = offset - start + limit + self._margin
        window = os.pread(descriptor, size, start)
        end = offset - start + limit
        if growing and len(window) < size:
            end = min(end, len(window) - self._begun(window))
        return self.blank(window)[offset - start : end] if end > offset - start else b""

    def blank(self, data: bytes) -> bytes:
        """The same with every value in it blanked, also where they overlap."""
        found = [span for value in self.values for span in _spans(data, value)]
        if not found:
            return data
        blanked = bytearray(data)
        for start, end in found:
            blanked[start:end] = b"*" * (end - start)
        return bytes(blanked)

    def text(self, text: str) -> str:
        """The same for a text."""
        return self.blank(text.encode(errors="surrogateescape")).decode(errors="replace") if self.values else text

    def _begun(self, data: bytes) -> int:
        """How many bytes at the end some value begins with: the most there are."""
        for length in range(min(self._margin, len(data)), 0, -1):
            if data[-length] in self._firsts:
                tail = data[-length:]
                if any(len(value) > length and value.startswith(tail) for value in self.values):
                    return length
        return 0


def _spans(data: bytes, value: bytes) -> Iterator[tuple[int, int]]:
    """Where ``data`` is ``value``; what overlaps or touches is one span. The time grows with the data alone, whatever repeats itself."""
    end = 0
    while (start := data.find(value, end)) >= 0:
        last = start
        # Of those that begin within the last one or right behind it, the one furthest on: whatever begins before it ends before it.
        while (further := data.rfind(value, last + 1, last + 2 * len(value))) >= 0:
            last = further
        end = last + len(value)
        yield start, end
