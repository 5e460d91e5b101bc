"""Who waits for whom in a document, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from wattle.core.graph import find_cycle
from wattle.document.model import Worker
from wattle.document.places import Path
from wattle.document.problems import Problem, suggestion

MAX_CYCLES = 10
_MAX_SUGGESTIONS = 20  # each may take a tenth of a second in a large document


class Dependencies:
    """The workers of a document by name, and the edges between them. ``found`` collects what is wrong.

    ``workers`` come with their positions in the document; those in ``vague`` have outputs that could not be read.
    """

    def __init__(self, workers: Iterable[tuple[int, Worker]], vague: set[int], found: list[Problem]) -> None:
        self.workers: dict[str, tuple[int, Worker]] = {}
        self.needs: dict[str, list[str]] = {}
        self.vague = vague
        self.found = found
        self.suggestions = 0
        for index, worker in workers:
            first = self.workers.setdefault(worker.name, (index, worker))
            if first[0] != index:
                problem = (
                    f"the name {worker.name!r} is taken: workers {first[0] + 1} and {index + 1} of the list have it"
                )
                found.append(Problem(problem, "Rename one of them.", ("workers", index, "name")))
            self.needs[worker.name] = []

    def add(self, index: int, worker: Worker) -> None:
        """Take in the inputs and needs of a worker; those that name what is not there are problems."""
        edges = self.needs[worker.name]
        for key, source in worker.inputs.items():
            producer, _, output = source.partition("/")
            known = self.workers.get(producer)
            if known is None or producer == worker.name:
                self._missing(worker, f"inputs.{key} reads {source!r}", producer, ("workers", index, "inputs", key))
                continue
            edges.append(producer)
            if output not in known[1].outputs and known[0] not in self.vague:
                listed = ", ".join(list(known[1].outputs)[:20]) or "nothing"
                problem = f"inputs.{key} reads {source!r}, but {producer!r} declares no output {output!r}; it declares: {listed}"
                fix = self._suggest(output, known[1].outputs, "outputs")
                self.found.append(Problem(problem, fix, ("workers", index, "inputs", key)))
        for number, need in enumerate(worker.needs):
            if need in self.workers and need != worker.name:
                edges.append(need)
            else:
                self._missing(worker, f"needs[{number}] is {need!r}", need, ("workers", index, "needs", number))

    def cycles(self) -> Iterator[Problem]:
        """Cycles, some of them where there are many."""
        for _ in range(MAX_CYCLES if any(self.needs.values()) else 0):
            cycle = find_cycle(self.needs)
            if cycle is None:
                return
            last, first = cycle[-2:]
            listed = cycle if len(cycle) <= 12 else [*cycle[:8], f"({len(cycle) - 10:,} more)", *cycle[-2:]]
            problem = f"workers wait for each other in a cycle: {' -> '.join(listed)}"
            yield Problem(problem, "Remove one of these dependencies.", self._edge(first, last))
            self.needs[first] = [need for need in self.needs[first] if need != last]

    def _missing(self, worker: Worker, what: str, name: str, path: Path) -> None:
        if name == worker.name:
            self.found.append(Problem(f"{what}: a worker cannot wait for itself", "Remove it.", path))
        else:
            fix = self._suggest(name, self.workers, "workers")
            self.found.append(Problem(f"{what}, but there is no worker {name!r}", fix, path))

    def _suggest(self, name: str, known: Iterable[str], what: str) -> str | None:
        self.suggestions += 1
        return suggestion(name, known, what) if self.suggestions <= _MAX_SUGGESTIONS else None

    def _edge(self, name: str, need: str) -> Path:
        """Where a worker names another."""
        index, worker = self.workers[name]
        for key, source in worker.inputs.items():
            if source.startswith(f"{need}/"):
                return ("workers", index, "inputs", key)
        return ("workers", index, "needs", worker.needs.index(need)) if need in worker.needs else ("workers", index)
