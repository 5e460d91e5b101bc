"""Attempt numbers: the rules of core/numbering.py alone; who asks for them is in test_replication.py."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from wattle.core.numbering import ATTEMPTS_PER_OWNER, first_attempt, is_of_a_later_epoch, next_attempt


def test_who_submitted_a_run_counts_from_1_whatever_the_epoch() -> None:
    assert [next_attempt(newest, 0, 1, "s") for newest in range(3)] == [(1, 1), (2, 1), (3, 1)]
    assert next_attempt(5, 0, 4, "s") == (6, 4)


def test_who_took_a_run_over_counts_on_from_a_place_of_its_own() -> None:
    first = first_attempt(3, "s")
    assert next_attempt(2, 3, 3, "s") == (first, 3)
    assert next_attempt(first, 3, 3, "s") == (first + 1, 3)
    assert next_attempt(first, 3, 7, "s") == (first + 1, 7)


def test_who_has_used_up_its_numbers_goes_on_in_a_later_epoch() -> None:
    first = first_attempt(2, "s")
    last = first - first % ATTEMPTS_PER_OWNER + ATTEMPTS_PER_OWNER - 1
    assert next_attempt(last, 2, 2, "s") == (first_attempt(3, "s"), 3)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), max_size=30))
def test_owners_that_hear_of_each_others_numbers_or_not_never_give_one_twice(steps: list[tuple[str, str]]) -> None:
    """``a`` submitted the run, ``b`` and ``c`` took it over, each beyond a cut. In a step one hears of another's, and gives the next."""
    newest = dict.fromkeys("abc", 0)
    epochs = dict.fromkeys("abc", 2)
    numbers: list[int] = []
    for store, other in steps:
        if not is_of_a_later_epoch(newest[other], epochs[store]):
            newest[store] = max(newest[store], newest[other])
        number, epoch = next_attempt(newest[store], 0 if store == "a" else 2, epochs[store], store)
        assert number > newest[store]
        assert not is_of_a_later_epoch(number, epoch)
        assert epochs[store] <= epoch <= epochs[store] + 1
        newest[store], epochs[store] = number, epoch
        numbers.append(number)
    assert len(numbers) == len(set(numbers))
