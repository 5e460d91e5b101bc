"""What owners' runs were after each of their commits: a copy is a state that its owner once had, and so is what an adopter gets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from tests.sim.stores import CoordinatorStore, Copies, CopyKey, Rows
from wattle.core.invariants import InvariantBroken


class States:
    """See the module's docstring."""

    def __init__(self) -> None:
        self._had: dict[CopyKey, dict[int, Rows]] = defaultdict(dict)

    def note(self, store: CoordinatorStore, changed: Iterable[str]) -> None:
        """A coordinator has committed something of these runs."""
        for run in changed:
            if run in store.runs:
                self._had[store.owner, store.id, run][store.number] = dict(store.runs[run])

    def check(self, keeper: str, copies: Copies, key: CopyKey) -> None:
        """What a peer keeps of a run is what its owner had; what merely stands in for it is another's."""
        copy = copies.kept.get(key)
        if copy is None or copy.head is None or not copy.head.number:
            return
        had = self._had[key].get(copy.head.number)
        if had != copy.rows:
            odd = {k for k in {*copy.rows, *(had or ())} if had is None or copy.rows.get(k) != had.get(k)}
            raise InvariantBroken(f"{keeper} keeps of {key} what never was, {copy.head}: {sorted(odd)}")
