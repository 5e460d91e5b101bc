"""What a peer keeps of other owners' runs: up to which commit it has each owner's. Both cores use it."""

from __future__ import annotations

from wattle.core.model import CopyPage


class Copies:
    """``cursors``: (owner, identity of its data folder) -> the owner's commit up to which everything is kept here."""

    def __init__(self) -> None:
        self.cursors: dict[tuple[str, str], int] = {}

    def forget(self, owner: str, store: str) -> None:
        """Some copies of an owner were dropped: it has to tell everything anew, should it come back."""
        self.cursors.pop((owner, store), None)

    def keep(self, page: CopyPage) -> tuple[bool, int]:
        """Whether to store a page, and how far the copies then go, which is the answer.

        A page that starts beyond the cursor would leave a gap, one that ends before it is told twice: neither is stored, and the answer
        says where to go on.
        """
        kept = self.cursors.get((page.owner, page.store), 0)
        if page.after < 0 or page.after > kept or page.number < kept:
            return False, kept
        if page.number == kept and not page.runs:
            return False, kept
        self.cursors[page.owner, page.store] = page.number
        return True, page.number
