"""Every key expression of Wattle, built and parsed here and nowhere else.

::

    wattle/<ns>/api/v1/...                              public requests, served by the gateway on duty (see wattle/gateway/routes.py)
    wattle/<ns>/event/runs/<run>[/workers/<worker>]     status changes, JSON
    wattle/<ns>/event/rejected                          puts and deletes that were refused (they have no reply)
    wattle/<ns>/state/<role>/<peer>                     any peer about itself
    wattle/<ns>/alive/<role>/<peer>/<incarnation>       liveliness tokens
    wattle/<ns>/duty/<peer>/<incarnation>               the liveliness token of a gateway that answers (wattle/gateway/duty.py)
    wattle/<ns>/feed/<peer>                             a peer's facts: published when new, queried with ?after=N
    wattle/<ns>/cmd/<peer>/<verb>                       commands: queries with replies
    wattle/<ns>/blob/<digest>                           who holds this content
    wattle/<ns>/blob/<digest>/<peer>                    this content from that peer, ?offset=&limit=
    wattle/<ns>/log/<run>/<worker>/<attempt>/<stream>   a task's output: bytes, ?offset=&limit=
    wattle/<ns>/roster                                  who is a member of a secured cluster (wattle/peer/rosters.py)

The peer's name stands in the key, so that access rules can be written per peer. Names cannot hold key-expression characters
(wattle/names.py), so no name can widen a key.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from wattle.core.model import TaskId
from wattle.errors import InvalidRequest
from wattle.names import check_name

ROLES = ("coordinator", "runtime", "gateway", "router")
STREAMS = ("stdout", "stderr")
DEFAULT_NAMESPACE = "default"
_ATTEMPT = re.compile(r"[1-9][0-9]{0,17}")  # written in one way only: an answer's key is made anew from the number


class Alive(NamedTuple):
    """A parsed liveliness token."""

    role: str
    peer: str
    incarnation: str


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one namespace."""

    namespace: str = DEFAULT_NAMESPACE

    def __post_init__(self) -> None:
        check_name(self.namespace, "namespace")

    @property
    def root(self) -> str:
        """``wattle/<ns>``."""
        return f"wattle/{self.namespace}"

    @property
    def everything(self) -> str:
        """All keys of the namespace."""
        return f"{self.root}/**"

    @property
    def roster(self) -> str:
        """Where members of a secured cluster compare their rosters."""
        return f"{self.root}/roster"

    # public requests
    def api(self, path: str = "**") -> str:
        """A public request; ``path`` is what follows ``api/v1/``."""
        return f"{self.root}/api/v1/{path}"

    def api_path(self, key: str) -> str:
        """What follows ``api/v1/`` in a request's key."""
        return _after(key, f"{self.root}/api/v1/")

    # events
    def event_run(self, run: str) -> str:
        """Status changes of a run."""
        return f"{self.root}/event/runs/{run}"

    def event_worker(self, run: str, worker: str) -> str:
        """Status changes of a worker of a run."""
        return f"{self.root}/event/runs/{run}/workers/{worker}"

    def events_near_run(self, run: str) -> str:
        """What to subscribe to for status changes of a run and of its workers: those of runs whose ids end alike come along.

        Of every key that is ever declared Zenoh keeps about 1 kB for good, on both sides (seen on 1.10.2), so what is subscribed to for
        a while must be one of few.
        """
        return f"{self.root}/event/runs/$*{run[-2:]}/**"

    def is_of_run(self, key: str, run: str) -> bool:
        """Whether an event is of a run or of one of its workers."""
        of_run = self.event_run(run)
        return key == of_run or key.startswith(f"{of_run}/")

    @property
    def events(self) -> str:
        """Every event of the namespace."""
        return f"{self.root}/event/**"

    @property
    def event_rejected(self) -> str:
        """Refused puts and deletes."""
        return f"{self.root}/event/rejected"

    # peers
    def state(self, role: str = "*", peer: str = "*") -> str:
        """A peer about itself."""
        return f"{self.root}/state/{role}/{peer}"

    def alive(self, role: str = "*", peer: str = "*", incarnation: str = "*") -> str:
        """A liveliness token, or a pattern of them."""
        return f"{self.root}/alive/{role}/{peer}/{incarnation}"

    def parse_alive(self, key: str) -> Alive:
        """Role, peer and incarnation of a token; raises InvalidRequest where they are no names: a peer called ``*`` would be everybody."""
        return _token(key, _after(key, f"{self.root}/alive/").split("/"))

    def duty(self, peer: str = "*", incarnation: str = "*") -> str:
        """The token of a gateway that is on duty, or a pattern of them."""
        return f"{self.root}/duty/{peer}/{incarnation}"

    def parse_duty(self, key: str) -> Alive:
        """The gateway that a token of duty is of; raises InvalidRequest as ``parse_alive`` does."""
        return _token(key, ["gateway", *_after(key, f"{self.root}/duty/").split("/")])

    def feed(self, peer: str = "*") -> str:
        """A peer's feed."""
        return f"{self.root}/feed/{peer}"

    def feed_peer(self, key: str) -> str:
        """Whose feed a key is."""
        return _after(key, f"{self.root}/feed/")

    def cmd(self, peer: str, verb: str) -> str:
        """A command; ``peer`` may be ``*`` to ask all who serve the verb."""
        return f"{self.root}/cmd/{peer}/{verb}"

    def cmd_peer(self, key: str) -> str:
        """The peer of a command's key: who answered, when it is a reply's."""
        return _after(key, f"{self.root}/cmd/").split("/", 1)[0]

    def cmd_verb(self, key: str) -> str:
        """The verb of a command's key."""
        return key.rsplit("/", 1)[-1]

    # content
    def blob(self, digest: str = "*") -> str:
        """Who holds some content."""
        return f"{self.root}/blob/{digest}"

    def blob_from(self, digest: str, peer: str) -> str:
        """Some content, from one peer."""
        return f"{self.root}/blob/{digest}/{peer}"

    def blob_digest(self, key: str) -> str:
        """The digest of a blob key of either form."""
        return _after(key, f"{self.root}/blob/").split("/", 1)[0]

    # logs
    def log(self, task: TaskId, stream: str) -> str:
        """A task's output."""
        return f"{self.root}/log/{task.run}/{task.worker}/{task.attempt}/{stream}"

    @property
    def logs(self) -> str:
        """Every task's output."""
        return f"{self.root}/log/**"

    def parse_log(self, key: str) -> tuple[TaskId, str]:
        """The task and stream of a log key; raises InvalidRequest when it names no single one."""
        parts = _after(key, f"{self.root}/log/").split("/")
        if len(parts) != 4 or _ATTEMPT.fullmatch(parts[2]) is None or parts[3] not in STREAMS:
            raise InvalidRequest(f"key {key!r} is no log; logs are log/<run>/<worker>/<attempt>/<stdout or stderr>")
        return TaskId(check_name(parts[0], "run"), check_name(parts[1], "worker"), int(parts[2])), parts[3]


def _token(key: str, parts: list[str]) -> Alive:
    if len(parts) != 3:
        raise InvalidRequest(f"key {key!r} is no liveliness token")
    for part, what in zip(parts, ("role", "peer", "incarnation"), strict=True):
        check_name(part, what)
    return Alive(*parts)


def _after(key: str, prefix: str) -> str:
    if not key.startswith(prefix):
        raise InvalidRequest(f"key {key!r} does not start with {prefix!r}")
    return key[len(prefix) :]
