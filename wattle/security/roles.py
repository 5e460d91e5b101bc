"""Who may do what: the one table. docs/security.md shows it, and a test compares them."""

from __future__ import annotations

from enum import StrEnum


class Action(StrEnum):
    """What a public request does; each route has one (wattle/gateway/routes.py)."""

    READ = "read"
    RUN = "run"
    DEFINE = "define"
    OPERATE = "operate"
    PRUNE = "prune"

    @property
    def changes(self) -> bool:
        """Whether it changes anything, and so is audited."""
        return self is not Action.READ


class Role(StrEnum):
    """What a person, or a program of theirs, is to a cluster."""

    VIEWER = "viewer"
    OPERATOR = "operator"
    ADMIN = "admin"

    def may(self, action: Action) -> bool:
        """Whether this role may do something."""
        return action in MAY[self]


MAY: dict[Role, frozenset[Action]] = {
    Role.VIEWER: frozenset({Action.READ}),
    Role.OPERATOR: frozenset({Action.READ, Action.RUN, Action.DEFINE}),
    Role.ADMIN: frozenset(Action),
}
"""What each role may do."""
