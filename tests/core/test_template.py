"""References in texts."""

from __future__ import annotations

import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from wattle.core.template import Reference, environment_name, malformed, references, render, render_script
from wattle.errors import InvalidRequest
from wattle.names import NAME_PATTERN

VALUES = {("params", "x"): "X", ("inputs", "a.b"): "/in", ("outputs", "out"): "/out", ("run", "id"): "r-1"}

kinds = st.sampled_from(["params", "inputs", "outputs"])
names = st.from_regex(NAME_PATTERN, fullmatch=True)
reference_lists = st.lists(st.tuples(kinds, names), max_size=5)
texts = st.text(st.sampled_from("${}.params runid#aé\n'\"\\"), max_size=30)


@pytest.mark.parametrize(
    ("text", "rendered"),
    [
        ("", ""),
        ("plain", "plain"),
        ("${params.x}", "X"),
        ("a${params.x}b${inputs.a.b}c", "aXb/inc"),
        ("${outputs.out} of ${run.id}", "/out of r-1"),
        ("${HOME} ${x:-1} $x ${} ${params}", "${HOME} ${x:-1} $x ${} ${params}"),
        ("$${params.x}", "${params.x}"),
        ("$$${params.x}", "$${params.x}"),
        ("$${", "${"),
        ("${params.x", "${params.x"),
        ("${ params.x }", "${ params.x }"),
        ("${params.}", "${params.}"),
        ("${run.name}", "${run.name}"),
    ],
)
def test_render(text: str, rendered: str) -> None:
    assert render(text, VALUES) == rendered


def test_a_value_is_never_expanded_again() -> None:
    values = {("params", "a"): "${params.b}", ("params", "b"): "$${params.a}"}
    assert render("${params.a} ${params.b}", values) == "${params.b} $${params.a}"


def test_a_reference_without_value_is_an_error_that_names_it() -> None:
    with pytest.raises(InvalidRequest, match=r"\$\{inputs\.data\}"):
        render("cat ${inputs.data}", VALUES)


def test_references_come_in_order_and_escapes_are_none() -> None:
    text = "${inputs.b} $${params.no} ${params.a} ${inputs.b} ${run.id} ${HOME}"
    expected = [Reference("inputs", "b"), Reference("params", "a"), Reference("inputs", "b"), Reference("run", "id")]
    assert references(text) == expected


def test_malformed_references_are_found_and_shell_variables_are_not() -> None:
    text = "${params.} ${inputs.a b} ${run.name} ${ params.x } ${params.x"
    assert malformed(text) == ["${params.}", "${inputs.a b}", "${run.name}", "${ params.x }", "${params.x"]
    assert malformed("${params.x} ${run.id} ${HOME} ${run} ${params:-1} ${inputs%.*} $${params.} ${a.b}") == []


def test_names_of_variables() -> None:
    assert environment_name("params", "x") == "WATTLE_PARAM_X"
    assert environment_name("inputs", "left-part.csv") == "WATTLE_INPUT_LEFT_PART_CSV"
    assert environment_name("outputs", "a_b") == "WATTLE_OUTPUT_A_B"
    assert environment_name("run", "id") == "WATTLE_RUN"


def test_a_script_gets_values_as_variables_so_that_they_are_not_run() -> None:
    script = render_script('printf "%s" "${params.evil}" $${#unset}; echo "${HOME}"')
    assert script == 'printf "%s" "${WATTLE_PARAM_EVIL}" ${#unset}; echo "${HOME}"'
    evil = '"; echo broken; $(echo broken) `echo broken` ${run.id}'
    done = subprocess.run(
        ["sh", "-eu", "-c", render_script('printf "%s" "${params.evil}"')],
        env={"WATTLE_PARAM_EVIL": evil, "PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == evil


@settings(deadline=None)
@given(reference_lists)
def test_what_is_written_as_a_reference_is_found(written: list[tuple[str, str]]) -> None:
    assert references(" ".join(f"${{{kind}.{name}}}" for kind, name in written)) == written


@settings(deadline=None)
@given(texts, reference_lists)
def test_rendering_each_reference_as_itself_changes_nothing(text: str, written: list[tuple[str, str]]) -> None:
    whole = text.replace("$${", "") + "".join(f" ${{{kind}.{name}}}" for kind, name in written)
    values = {tuple(reference): str(reference) for reference in references(whole)}
    assert render(whole, {(kind, name): value for (kind, name), value in values.items()}) == whole


@settings(deadline=None)
@given(texts)
def test_an_escaped_text_renders_to_itself(text: str) -> None:
    # a dollar before a reference would take the escape's first one: "$" + "$${" is "$" and "${", which is what was meant
    assert render(text.replace("${", "$${"), {}) == text


@settings(deadline=None)
@given(texts)
def test_a_rendered_script_refers_to_nothing_any_more(text: str) -> None:
    if "$${" not in text:
        assert references(render_script(text)) == []
