"""A coordinator that sees no runtime: it is more likely cut off itself than the last one left."""

from __future__ import annotations

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.coordinator import CoordinatorCore, CoordinatorOptions
from wattle.core.model import NodeInfo, RunHead

OPEN = RunHead("open", "c2", "s2", 1, number=3)
ENDED = RunHead("ended", "c2", "s2", 1, number=4, final=True, completed_at=5.0)
STANDS_IN = RunHead("let go", "c2", "s2", 1, final=True, completed_at=5.0)
"""Of an end that was heard of: what is here is the state in which this coordinator let go of the run for it."""


class Lonely:
    """A coordinator whose only fellow has gone; it has copies of three runs of his."""

    def __init__(self) -> None:
        self.core = CoordinatorCore("c1", CoordinatorOptions(adopt_after=1.0), lambda: 0.5, store="s1")
        self.now = 100.0
        self.tell(on.CoordinatorSeen("c2", "life", "s2"), on.CoordinatorGone("c2", "life"))

    def tell(self, *events: on.CoordinatorEvent) -> list[do.CoordinatorEffect]:
        return self.core.handle(events, self.now)

    def inquire(self, silent: str = "") -> set[str]:
        """Have what is due asked and answered out of one store, but by a silent peer; the runs it sets out to adopt."""
        self.now += 1.0
        effects = self.tell(on.Tick())
        gathered: set[str] = set()
        while questions := [e for e in effects if isinstance(e, do.AskCopies) and (e.owner or e.runs)]:
            effects = self.tell(
                *(
                    on.CopiesUntold(q.peer, q.token)
                    if q.peer == silent
                    else on.CopiesTold(q.peer, q.token, (OPEN, ENDED, STANDS_IN), frozenset())
                    for q in questions
                )
            )
            gathered |= {e.head.run for e in effects if isinstance(e, do.Gather)}
        return gathered


def test_a_coordinator_that_sees_no_runtime_adopts_only_what_has_ended() -> None:
    lonely = Lonely()
    assert lonely.inquire() == {"ended"}
    lonely.tell(on.NotGathered(ENDED))
    lonely.tell(on.NodeSeen(NodeInfo("n1", incarnation="i", store="s", slots=1), {}))
    assert lonely.inquire() == {"open", "ended", "let go"}


def test_a_runtime_that_does_not_answer_may_be_out_of_reach_and_not_missed_yet() -> None:
    lonely = Lonely()
    lonely.tell(on.NodeSeen(NodeInfo("n1", incarnation="i", store="s", slots=1), {}))
    assert lonely.inquire(silent="n1") == {"ended"}
    lonely.tell(on.NotGathered(ENDED))
    assert lonely.inquire() == {"open", "ended", "let go"}
