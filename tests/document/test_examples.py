"""Every example loads; those that need nothing special run and give what they should."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from tests.document.local import RunHere
from wattle.document.compile import compile_document, plan
from wattle.document.load import load

EXAMPLES = Path(__file__).parents[2] / "examples"
WORDCOUNT = EXAMPLES / "wordcount"
DOCUMENTS = sorted(path for path in EXAMPLES.rglob("*") if path.suffix in (".yaml", ".json"))


def test_there_are_examples() -> None:
    assert {path.name for path in DOCUMENTS} >= {
        "wordcount.yaml",
        "diamond.json",
        "retry.yaml",
        "params.yaml",
        "gpu.yaml",
    }


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_example_loads_and_has_a_plan(path: Path) -> None:
    document = load(path.read_bytes(), file=str(path))
    found = plan(document, {name: "/x" for name, default in document.params.items() if default is None})
    assert sum(len(level) for level in found.levels) == len(document.workers)


def words_of(path: Path) -> list[str]:
    """Letters and apostrophes within words, without the title in the first line."""
    text = path.read_text(encoding="ascii").split("\n", 1)[1].lower()
    return re.findall(r"[a-z](?:[a-z']*[a-z])?", text)


def test_wordcount_counts_right(run_here: RunHere) -> None:
    texts = {path.stem: words_of(path) for path in (WORDCOUNT / "texts").glob("*.txt")}
    assert len(texts) == 4
    workflow = compile_document(
        load((WORDCOUNT / "wordcount.yaml").read_bytes()), {"texts": str(WORDCOUNT / "texts"), "top": 15}
    )
    report = run_here(workflow)["report"]
    lengths = [int(line.split()[-1]) for line in report.split("\n\n")[0].splitlines()[1:]]
    assert lengths == [
        *(len(texts[name]) for name in ("alice", "moby-dick", "pride", "two-cities")),
        sum(map(len, texts.values())),
    ]
    counted = [(line.split()[0], int(line.split()[1])) for line in report.split("\n\n")[1].splitlines()[1:]]
    total = Counter(word for words in texts.values() for word in words)
    assert counted == sorted(total.items(), key=lambda item: (-item[1], item[0]))[:15]
    assert counted[0][0] == "the"


def test_wordcount_fails_where_the_texts_are_not(run_here: RunHere, tmp_path: Path) -> None:
    workflow = compile_document(load((WORDCOUNT / "wordcount.yaml").read_bytes()), {"texts": str(tmp_path / "nowhere")})
    with pytest.raises(AssertionError, match="nowhere"):
        run_here(workflow)


def test_the_diamond_computes_right(run_here: RunHere) -> None:
    printed = run_here(compile_document(load((EXAMPLES / "diamond.json").read_bytes())))
    numbers = range(1, 101)
    assert printed["join"] == f"sum {sum(numbers)}, sum of squares {sum(n * n for n in numbers)}\n"


def test_parameters_reach_commands_scripts_and_paths(run_here: RunHere) -> None:
    workflow = compile_document(
        load((EXAMPLES / "params.yaml").read_bytes()), {"who": 'Ada "; false', "times": 2, "greeting": "Good day"}
    )
    printed = run_here(workflow)
    assert printed["greet"] == 'Good day, Ada "; false!\n'
    assert printed["show"] == '1: Good day, Ada "; false!\n2: Good day, Ada "; false!\n'
