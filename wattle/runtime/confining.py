"""The runtime's part in confining tasks: which concern it at all, what this node has for it, and whose folders are.

What it takes (wattle/runtime/confinement.py, support.py) is imported with the first task that needs it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from wattle.core.model import Assignment
from wattle.runtime.layout import Folders, Layout
from wattle.settings import RuntimeSettings

if TYPE_CHECKING:
    from wattle.runtime.confinement import Confinement
    from wattle.runtime.policy import Policy, Support


class Confining:
    """One runtime's. ``demanded``: the settings have every task confined."""

    def __init__(self, settings: RuntimeSettings, folders: Folders) -> None:
        self._settings = settings
        self._folders = folders
        self._support: Support | None = None
        self._policy: Policy | None = None
        limits = settings.default_limits or settings.max_limits
        self.demanded = bool(settings.min_sandbox != "none" or limits or settings.task_users)

    def concerns(self, assignment: Assignment) -> bool:
        """Whether there is anything to do about a task: there is not for most, and no time must be lost on them."""
        return bool(self.demanded or assignment.limits or assignment.sandbox != "none" or assignment.run_as)

    def examine(self) -> Support:
        """Find out what this node has, unless that is known. Raises SettingsError where the settings demand more."""
        if self._support is None:
            from wattle.runtime import support

            found = support.examine()
            support.check(self.policy, found)
            self._support = found
        return self._support

    @property
    def policy(self) -> Policy:
        """What the settings demand."""
        if self._policy is None:
            from wattle.runtime.support import policy_of

            self._policy = policy_of(self._settings)
        return self._policy

    @property
    def confines(self) -> tuple[str, ...]:
        """What this node says of itself, as far as it has looked."""
        return () if self._support is None else self._support.confines

    def confine(self, assignment: Assignment, at: Layout) -> Confinement | None:
        """How a task is to be started, None for as it is; raises InvalidRequest for what cannot be had or is not allowed here."""
        if not self.concerns(assignment):
            return None
        from wattle.runtime.confinement import check_asked, confine, user_of
        from wattle.runtime.support import known_user

        check_asked(assignment)
        name = user_of(assignment, self.policy)
        user = None if name is None else known_user(name)
        return confine(assignment, at, self._folders, self.policy, self.examine(), user)

    def check_outputs(self, assignment: Assignment, at: Layout) -> None:
        """Raise InvalidRequest where links that a task left behind lead this runtime to files that the task itself may not touch."""
        if self.concerns(assignment):
            from wattle.runtime.confinement import shut_in
            from wattle.runtime.sandbox import check_files

            if shut_in(assignment, self.policy):
                check_files(at)

    def give_folders(self, assignment: Assignment, at: Layout, confined: Confinement) -> None:
        """Give a task's private folder, as far as it is there to be written to, to the user that it runs as."""
        user, private = confined.user, self._folders.work(assignment.id)
        if user is None or not Path(at.cwd).is_relative_to(private):
            return
        mine = {private, Path(at.cwd)}
        for path in at.outputs.values():
            mine |= {folder for folder in path.parents if folder.is_relative_to(private)}
        for folder in mine:
            os.chown(folder, user.uid, user.gid, follow_symlinks=False)
