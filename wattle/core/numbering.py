"""The numbers of attempts: whoever gives them out, no two attempts of a worker have the same, and a later one's is higher.

Who submitted a run gives out 1, 2, 3 and so on. Who takes it over may not know all of these, nor what others give out at the same time
beyond a cut. So each epoch has a billion numbers of its own, and each data folder a thousand of these, in a place that the folder's
identity says: the first one given out by who took a run over in epoch 2 may be 1483920001, the second 1483920002. Two folders have the
same place once in a million. It is not the coordinator's name that counts: one that is set up anew on an empty folder does not know what
it gave out before.
"""

from __future__ import annotations

from wattle.core.hashing import place_of

ATTEMPTS_PER_EPOCH = 1_000_000_000
ATTEMPTS_PER_OWNER = 1_000
_PLACES = ATTEMPTS_PER_EPOCH // ATTEMPTS_PER_OWNER


def first_attempt(epoch: int, store: str) -> int:
    """The first number of an epoch that the data folder ``store`` gives out."""
    return (epoch - 1) * ATTEMPTS_PER_EPOCH + place_of(store, _PLACES) * ATTEMPTS_PER_OWNER + 1


def is_of_a_later_epoch(attempt: int, epoch: int) -> bool:
    """Whether a number was given out by a later owner than that of ``epoch``."""
    return attempt > epoch * ATTEMPTS_PER_EPOCH


def next_attempt(newest: int, adopted: int, epoch: int, store: str) -> tuple[int, int]:
    """The number above ``newest`` that the data folder ``store`` gives out next, and the epoch from which the run is to be in for that.

    ``adopted`` is the epoch in which the run was taken over, 0 for the one that submitted it. It goes on in its own place of a later epoch
    when it has learned of another's numbers, or has used up its thousand.
    """
    attempt = newest + 1
    if adopted:
        attempt = max(attempt, first_attempt(adopted, store))
    elif not is_of_a_later_epoch(attempt, 1):
        return attempt, epoch
    if attempt % ATTEMPTS_PER_EPOCH // ATTEMPTS_PER_OWNER == place_of(store, _PLACES):
        return attempt, epoch
    if first_attempt(epoch, store) <= newest:
        epoch += 1
    return first_attempt(epoch, store), epoch
