"""When a failed worker is tried again."""

from __future__ import annotations

from wattle.core.model import Retries


def retry_delay(retries: Retries, failures: int, share: float) -> float | None:
    """Seconds until the next attempt after ``failures`` failed ones, or None when there is no attempt left.

    ``share`` is a random number from [0, 1), given by the caller so that this stays pure.
    """
    if failures > retries.max:
        return None
    try:
        delay = retries.delay * retries.backoff ** (failures - 1)
    except OverflowError:
        delay = retries.max_delay
    delay = min(delay, retries.max_delay)
    return max(0.0, delay * (1.0 + retries.jitter * (2.0 * share - 1.0)))
