"""What a peer keeps of other owners' runs: up to which commit it has each owner's. Both cores use it."""

from __future__ import annotations

from collections.abc import Iterable

from wattle.core.model import CopyPage, RunHead


class Copies:
    """``cursors``: (owner, identity of its data folder) -> the owner's commit up to which everything is kept here.

    What takes several pages moves the cursor with the last of them. So of those before it is remembered, not stored, how many came since
    anything was dropped: a cursor does not tell whether that was before the first page or after it. They also change what is kept while the
    cursor stays, so a page of what its owner had begun to tell before does not fit any more, though it may start at the cursor.
    """

    def __init__(self) -> None:
        self.cursors: dict[tuple[str, str], int] = {}
        # An owner -> when its telling began, and the part of it that may come next.
        self._told: dict[tuple[str, str], tuple[int, int]] = {}

    def forget(self, owner: str, store: str) -> None:
        """Some copies of an owner were dropped: it has to tell everything anew, should it come back."""
        self.cursors.pop((owner, store), None)
        if (owner, store) in self._told:
            begun, _ = self._told[owner, store]
            self._told[owner, store] = begun, 0

    def keep(self, page: CopyPage) -> tuple[bool, int]:
        """Whether to store a page, and how far the copies then go, which is the answer.

        A page that starts beyond the cursor would leave a gap, one that ends before it is told twice: neither is stored, and the answer
        says where to go on. Nor is one of an earlier telling, nor one whose parts before it were dropped, or are on a disk that is lost:
        all are to be told anew.
        """
        owner = (page.owner, page.store)
        kept, (begun, part) = self.cursors.get(owner, 0), self._told.get(owner, (0, 0))
        part = part if page.begun == begun else 0
        if page.after < 0 or page.after > kept or page.number < kept or page.begun < begun or page.part > part:
            return False, kept
        if page.number == kept and not page.runs:
            return False, kept
        self.cursors[owner] = page.number
        self._told[owner] = page.begun, max(part, page.part + 1)
        return True, page.number


def better(page: CopyPage, known: Iterable[RunHead]) -> tuple[RunHead, ...]:
    """Of the states that a follower knows of a page's runs, those that count more than what the page tells: its owner lets go of these.

    Also those of later owners that have not heard of an end that the page tells: with a quorum, its owner does not count on this follower.
    And worse ones that are cancelled where the page's is not: whose they are may be gone before its owner saw it, and this is how it hears.
    """
    told = {copied.run: copied.head for copied in page.runs if copied.head is not None}
    best: dict[str, RunHead] = {}
    later: dict[str, RunHead] = {}
    unheeded: dict[str, RunHead] = {}
    for head in known:
        if not head.store or (head.owner, head.store) == (page.owner, page.store):
            continue  # it only stands in for another owner's state, or is an older one of this owner's
        than = best.get(head.run) or told.get(head.run)
        if than is not None and head.standing > than.standing:
            best[head.run] = head
        elif than is not None and head.overtook(than):
            later[head.run] = head
        elif than is not None and not than.heeds(head):
            unheeded[head.run] = head
    return tuple((unheeded | later | best).values())
