"""The in-memory bus matches keys exactly as Zenoh does."""

from __future__ import annotations

import pytest
import zenoh
from hypothesis import given
from hypothesis import strategies as st

from wattle.bus.keyexpr import check_key_expression, includes, intersects
from wattle.errors import InvalidRequest

CHUNKS = st.sampled_from(["a", "b", "ab", "*", "**", "$*b", "$*ab"])
KEYS = st.lists(CHUNKS, min_size=1, max_size=5).map(lambda chunks: str(zenoh.KeyExpr.autocanonize("/".join(chunks))))


@given(KEYS, KEYS)
def test_intersects_as_zenoh_does(left: str, right: str) -> None:
    assert intersects(left, right) == zenoh.KeyExpr(left).intersects(zenoh.KeyExpr(right))


@given(KEYS, KEYS)
def test_includes_as_zenoh_does(outer: str, inner: str) -> None:
    assert includes(outer, inner) == zenoh.KeyExpr(outer).includes(zenoh.KeyExpr(inner))


@given(st.text("ab*/#?", max_size=8))
def test_accepts_what_zenoh_accepts(key: str) -> None:
    try:
        zenoh.KeyExpr(key)
        valid = True
    except zenoh.ZError:
        valid = False
    if valid:
        assert check_key_expression(key) == key
    else:
        with pytest.raises(InvalidRequest, match="key expression"):
            check_key_expression(key)
