"""Keys as others send them: what is parsed stands for one thing, and that thing has this key and no other."""

from __future__ import annotations

import pytest

from wattle.core.model import TaskId
from wattle.errors import InvalidRequest
from wattle.protocol.keys import Keys

KEYS = Keys()


def test_a_log_is_asked_for_by_the_key_it_has() -> None:
    task = TaskId("r", "w", 12)
    assert KEYS.parse_log(KEYS.log(task, "stdout")) == (task, "stdout")


@pytest.mark.parametrize("attempt", ["0", "01", "00", "-1", "+1", "1_0", "x", "", "*", "٣", "9" * 19, "9" * 5000])
def test_an_attempt_is_written_in_one_way(attempt: str) -> None:
    """The answer stands on the key that is made of the number; on ``01`` it would fit no question, which once ended the runtime."""
    with pytest.raises(InvalidRequest, match="is no log"):
        KEYS.parse_log(f"wattle/default/log/r/w/{attempt}/stdout")


@pytest.mark.parametrize(
    "token", ["runtime/*/1", "*/n/1", "runtime/n/**", "runtime//1", "runtime/n$*/1", "runtime/../1"]
)
def test_a_token_of_everybody_is_nobodys(token: str) -> None:
    with pytest.raises(InvalidRequest):
        KEYS.parse_alive(f"wattle/default/alive/{token}")
