"""Values are what dataclasses are to whoever uses them, although their methods are compiled late."""

from dataclasses import dataclass, field, fields, replace
from typing import Any

import pytest

from wattle.values import value


@value(frozen=True, slots=True)
class Point:
    """With fields of every kind."""

    x: int
    y: int = 2
    names: dict[str, int] = field(default_factory=dict)
    more: list[int] | None = None


@value(frozen=True, slots=True)
class Named(Point):
    name: str = ""


@value(frozen=True, slots=True, kw_only=True)
class ByName:
    a: int
    b: int = 1
    c: int


@value(frozen=True, slots=True)
class Nothing:
    pass


@dataclass(slots=True, unsafe_hash=True)
class Pair:
    """What ``Couple`` is compared with."""

    a: int
    b: str = "b"


@value(frozen=True, slots=True)
class Couple:
    a: int
    b: str = "b"


def test_fields_are_given_by_place_and_by_name_and_have_their_defaults() -> None:
    one, two = Point(1), Point(1, names={"a": 1})
    assert (one.x, one.y, one.names, one.more) == (1, 2, {}, None)
    assert (two.x, two.names) == (1, {"a": 1})
    assert one.names is not Point(1).names, "a default is made anew for each"
    assert Point(1, more=[]).more == []
    assert Named(1, name="n").name == "n"
    assert (ByName(c=3, a=1).b, Nothing()) == (1, Nothing())


@pytest.mark.parametrize(
    ("kind", "given", "named", "complaint"),
    [
        (Point, (), {}, r"Point.__init__\(\) missing 1 required positional argument: 'x'"),
        (Point, (1,), {"z": 1}, r"unexpected keyword argument 'z'"),
        (ByName, (1,), {"c": 1}, r"takes 1 positional argument but 2"),
        (Nothing, (1,), {}, r"takes 1 positional argument but 2"),
    ],
)
def test_what_does_not_fit_is_refused(kind: Any, given: tuple[int, ...], named: dict[str, int], complaint: str) -> None:
    for _ in range(2):  # before and after it is compiled
        with pytest.raises(TypeError, match=complaint):
            kind(*given, **named)


def test_values_are_equal_by_kind_and_fields_and_have_the_hash_of_a_dataclass() -> None:
    for _ in range(2):
        assert Couple(1) == Couple(1) != Couple(2)
        assert Couple(1).__eq__(Pair(1)) is NotImplemented
        assert Point(1, 2) != Named(1, 2)
        assert hash(Couple(1, "c")) == hash(Pair(1, "c"))
        assert {Couple(1), Couple(1)} == {Couple(1)}
        assert Nothing() == Nothing()
        assert hash(Nothing()) == hash(())


def test_the_rest_of_a_dataclass_is_there() -> None:
    assert repr(Couple(1)) == "Couple(a=1, b='b')"
    assert repr(Nothing()) == "Nothing()"
    assert [part.name for part in fields(Named)] == ["x", "y", "names", "more", "name"]
    assert replace(Couple(1), b="c") == Couple(1, "c")
    assert Point.__doc__ == "With fields of every kind."
    match Couple(1):
        case Couple(a, b):
            assert (a, b) == (1, "b")
    with pytest.raises(AttributeError):
        Couple(1).d = 1  # type: ignore[attr-defined]


def test_what_would_be_passed_over_is_refused() -> None:
    with pytest.raises(AssertionError, match="a class that does more when it is made is a dataclass"):

        @value(frozen=True, slots=True)
        class _Checked:
            a: int

            def __post_init__(self) -> None:
                """Never called."""

    with pytest.raises(AssertionError, match="a value that may change is a dataclass"):
        value(frozen=False, slots=True)
