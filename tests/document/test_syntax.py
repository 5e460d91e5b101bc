"""Reading JSON and YAML, and finding the places of values."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattle.document.places import MAX_DEPTH, Mark, Path, SyntaxProblem
from wattle.document.syntax import Format, parse
from wattle.document.yamltext import MAX_ALIASES

plain = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8)
)
values = st.recursive(
    plain,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


def paths(value: object, path: Path = ()) -> list[Path]:
    items: list[tuple[str | int, object]] = []
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    return [path, *(found for key, inner in items for found in paths(inner, (*path, key)))]


@settings(deadline=None)
@given(values, st.sampled_from([None, 2, "\t"]))
def test_json_means_what_json_means_and_every_value_has_its_place(value: object, indent: int | str | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=indent is None)
    parsed = parse(text, "json")
    assert parsed.value == value
    assert not parsed.repeated
    wanted = paths(value)
    places, repeated = parsed.locate(wanted)
    assert not repeated
    assert places.keys() == set(wanted)
    lines = text.split("\n")
    for path, place in places.items():
        inner: object = value
        for key in path:
            inner = inner[key]  # type: ignore[index]  # the path was made from this value
        rest = "\n".join(lines[place.value.line - 1 :])[place.value.column - 1 :]
        assert json.JSONDecoder().raw_decode(rest)[0] == inner
        if path and isinstance(path[-1], str):
            at_key = "\n".join(lines[place.key.line - 1 :])[place.key.column - 1 :]
            assert json.JSONDecoder().raw_decode(at_key)[0] == path[-1]


@settings(deadline=None)
@given(values)
def test_json_is_read_alike_as_yaml(value: object) -> None:
    text = json.dumps(value)
    try:
        assert parse(text, "yaml").value == value
    except (
        SyntaxProblem
    ):  # what JSON escapes as a surrogate pair, and keys that merge, are nothing that YAML reads alike
        assert "\\ud" in text or "<<" in text


@pytest.mark.parametrize(
    ("scalar", "value"),
    [
        ("yes", "yes"), ("no", "no"), ("on", "on"), ("true", True), ("False", False), ("null", None), ("~", None), ("", None),
        ("007", "007"), ("0o17", "0o17"), ("0x1f", "0x1f"), ("1_000", "1_000"), ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"),
        ("0", 0), ("-12", -12), ("+1", "+1"), ("1.50", 1.5), ("1e3", 1000.0), (".5", ".5"), (".inf", ".inf"), ("1.2.3", "1.2.3"),
        ("'1'", "1"), ('"true"', "true"), ("!!str 5", "5"), ("|\n  a\n  b", "a\nb\n"), ("=", "="), ("9" * 400, "9" * 400),
    ],
)  # fmt: skip
def test_yaml_scalars_mean_what_they_look_like(scalar: str, value: object) -> None:
    found = parse(f"a: {scalar}\n").value["a"]
    assert found == value
    assert type(found) is type(value)


def test_yaml_keys_are_texts() -> None:
    assert parse("1: a\nyes: b\nnull: c\n").value == {"1": "a", "yes": "b", "null": "c"}


def test_anchors_and_merge_keys() -> None:
    text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz: {<<: *x, b: 5}\nw: {<<: [*x, *y]}\nl: [*x, *x]\n"
    value = parse(text).value
    assert value["z"] == {"a": 1, "b": 5}
    assert value["w"] == {"a": 1, "b": 2, "c": 4}
    assert value["l"] == [{"a": 1, "b": 2}] * 2
    assert not parse(text).repeated


def test_places_in_yaml() -> None:
    text = "name: p\nworkers:\n  - name: a\n    args: [x, 'y']\n  - {name: é, env: {b: 1}}\n"
    places, _ = parse(text).locate(
        [("workers", 0), ("workers", 0, "args", 1), ("workers", 1, "env", "b"), ("nothing",)]
    )
    assert places[("workers", 0)].value == Mark(3, 5)
    assert places[("workers", 0, "args", 1)].value == Mark(4, 15)
    assert places[("workers", 1, "env", "b")] == (Mark(5, 21), Mark(5, 24))
    assert ("nothing",) not in places


@pytest.mark.parametrize(
    ("text", "marks"),
    [
        ('{"a": 1,\n "a": 2}', [(("a",), Mark(2, 2))]),
        ('{"a": {"b": 1, "\\u0062": 2}, "c": [{"d": 0}, {"d": 1}]}', [(("a", "b"), Mark(1, 16))]),
        ("a: 1\nb:\n  c: 1\n  'c': 2\na: 3\n", [(("b", "c"), Mark(4, 3)), (("a",), Mark(5, 1))]),
    ],
)
def test_repeated_keys_are_found(text: str, marks: list[tuple[Path, Mark]]) -> None:
    parsed = parse(text)
    assert parsed.repeated
    assert parsed.locate(())[1] == marks


@pytest.mark.parametrize(
    ("data", "format", "mark", "message"),
    [
        ("", "auto", (1, 1), "empty"),
        (" \n ", "json", (1, 1), "empty"),
        ("# nothing\n", "yaml", (1, 1), "empty"),
        ('{"a": 1,}', "json", (1, 9), "no valid JSON"),
        ('{"a":\n\t1, "b": x}', "json", (2, 10), "no valid JSON"),
        ("{'a': 1", "auto", (1, 2), "no valid JSON"),
        ("a: [1,\nb: 2", "auto", (2, 5), "no valid YAML"),
        ("a:\n\t- b", "auto", (2, 1), "no valid YAML"),
        ("a: b: c", "auto", (1, 5), "no valid YAML"),
        ("é: 1\nb: \x01", "auto", (2, 4), "U+0001"),
        (b"a: 1\nb: \xc3\xa9\xff", "auto", (2, 5), "UTF-8"),
        ("a: '\ud800'", "auto", (1, 5), "surrogate"),
        ("--- {}\n--- {}", "auto", (2, 1), "second document"),
        ("a: !!python/object/apply:os.system [echo]", "auto", (1, 4), "tag"),
        ("a: !!int 5", "auto", (1, 4), "tag"),
        ("? [a]\n: b", "auto", (1, 3), "key"),
        ("a: &x 1\n*x : b", "auto", (2, 1), "key"),
        ("a: *x", "auto", (1, 4), "*x"),
        ("a: &x [*x]", "auto", (1, 8), "*x"),
        ("a: 1\n<<: 3", "auto", (2, 5), "<<"),
        ('{"a": ' + "1" * 5000 + "}", "json", (1, 7), "too long"),
    ],
)
def test_texts_that_cannot_be_read(data: bytes | str, format: Format, mark: tuple[int, int], message: str) -> None:
    with pytest.raises(SyntaxProblem) as caught:
        parse(data, format)
    assert caught.value.mark == mark
    assert message in caught.value.message


@pytest.mark.parametrize("depth", [MAX_DEPTH + 1, 900, 200_000])
@pytest.mark.parametrize(
    ("opening", "format"), [("[", "json"), ('{"a":', "json"), ("[", "yaml"), ("{a: ", "yaml"), ("- ", "yaml")]
)
def test_deep_nesting_is_refused_where_it_gets_too_deep(depth: int, opening: str, format: Format) -> None:
    closing = {"[": "]", "{": "}", "-": ""}[opening[0]]
    inner = "0" if format == "json" else "x"
    with pytest.raises(SyntaxProblem, match=r"deep|nesting depth") as caught:
        parse(opening * depth + inner + closing * depth, format).locate(())
    if (
        "nesting depth" not in caught.value.message
    ):  # newer YAML libraries have a limit of their own, met while they read ahead
        assert caught.value.mark == (1, len(opening) * MAX_DEPTH + 1)


def test_values_as_deep_as_allowed_are_read() -> None:
    for format in ("json", "yaml"):
        parse("[" * MAX_DEPTH + "]" * MAX_DEPTH, "json" if format == "json" else "yaml").locate(())


def test_aliases_are_bounded_in_number_and_in_what_they_stand_for() -> None:
    with pytest.raises(SyntaxProblem, match="aliases"):
        parse("a: &x 1\nb:\n" + "  - *x\n" * (MAX_ALIASES + 1))
    laughs = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    laughs += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 12)]
    with pytest.raises(SyntaxProblem, match="aliases"):
        parse("\n".join(laughs))


def test_a_document_that_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("wattle.document.syntax.MAX_BYTES", 10)
    with pytest.raises(SyntaxProblem, match="larger"):
        parse("name: larger")


def test_auto_takes_yaml_flow_mappings_too() -> None:
    assert parse("{a: 1}").format == "yaml"
    assert parse('\ufeff{"a": 1}').format == "json"
    assert parse(b'\xef\xbb\xbf{"a": NaN}').format == "json"
    assert math.isnan(parse('{"a": NaN}').value["a"])
    assert parse("name: x").format == "yaml"
