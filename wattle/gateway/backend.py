"""What a gateway asks of the network: all coordinators at once, or one of them, or one runtime."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Collection, Iterable
from contextlib import suppress
from typing import Any

import trio
from pydantic_core import to_json

from wattle.bus.base import TIMEOUT, Bus, Reply, Sample
from wattle.core.hashing import ranked
from wattle.errors import InternalError, InvalidRequest, NotFound, Unavailable, WattleError, error_from_dict
from wattle.gateway.request import LATE, MOMENT, Patience
from wattle.peer.presence import Presence
from wattle.peer.probing import read_view
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.messages import NOT_HERE
from wattle.protocol.verbs import PROBE

COMEBACK = 2.0
"""Seconds that a submission waits for a coordinator where one was in sight before."""


AWAY = ("unreachable", "lost")
"""What coordinators say of nodes that they do not see."""


class Backend:
    """Questions with one meaning of failure: an error somebody gave is raised; silence is NOT_FOUND or NO_COORDINATOR."""

    def __init__(self, bus: Bus, keys: Keys, presence: Presence, *, timeout: float) -> None:
        self.bus, self.keys, self._presence, self.timeout = bus, keys, presence, timeout
        self._had_coordinator = False
        self._known: set[str] = set()  # coordinators that were ever in sight: one beyond a broken link may have a run

    def patience(self, wait: float = 0.0) -> Patience:
        """For a request that comes now, and asks to wait so many seconds."""
        now = trio.current_time()
        return Patience(now + wait, now + max(self.timeout, wait + LATE))

    async def _get(
        self,
        key: str,
        payload: bytes | None = None,
        *,
        answerers: Collection[Alive],
        timeout: float,
        everyone: bool = False,
        parameters: str = "",
        first: bool = True,
        most: int | None = None,
    ) -> list[Reply] | None:
        """All answers; None when one of ``answerers`` goes out of sight before they are there."""
        with self._presence.while_in_sight(answerers):
            return await self.bus.get(
                key, payload, parameters=parameters, timeout=timeout, everyone=everyone, first=first, most=most
            )
        return None

    async def everyone(self, verb: str, args: dict[str, Any]) -> list[tuple[str, Any]]:
        """What each coordinator answers, with its name, but for those that do not know what is asked for."""
        patience = self.patience()
        key, replies = self.keys.cmd("*", verb), None
        while replies is None:
            answerers = self._presence.newest("coordinator")
            replies = await self._get(
                key, to_json(args), answerers=answerers, timeout=patience.timeout, everyone=True, first=False
            )
        answers = [(self.keys.cmd_peer(r.key), json.loads(r.payload)) for r in replies if r.ok]
        self._had_coordinator = self._had_coordinator or bool(answers)
        if not answers:
            self._raise(replies)
        return answers

    async def probe(self, peers: set[tuple[str, str]]) -> dict[str, Any]:
        """What each peer sees of these and of any other that it knows, by its name; what is no view counts as no answer."""
        question = to_json({"peers": sorted(peers)})
        replies = await self.bus.get(self.keys.cmd("*", PROBE), question, timeout=self.timeout, everyone=True)
        views = {}
        for reply in replies:
            with suppress(InvalidRequest):
                if reply.ok:
                    views[self.keys.cmd_peer(reply.key)] = read_view(reply.payload)
        return views

    async def all_agree(self, verb: str, args: dict[str, Any]) -> list[tuple[str, Any]]:
        """What each coordinator answers; an error of any of them is raised."""
        key = self.keys.cmd("*", verb)
        replies = await self.bus.get(key, to_json(args), timeout=self.timeout, everyone=True)
        failed = [reply for reply in replies if not reply.ok]
        if failed or not replies:
            self._raise(failed)
        return [(self.keys.cmd_peer(r.key), json.loads(r.payload)) for r in replies]

    def _raise(self, replies: Iterable[Reply]) -> None:
        """Raise what went wrong, if anything did."""
        for reply in replies:
            if _code(reply) != NOT_HERE:
                raise _error(reply)
        if not self._presence.names("coordinator"):
            raise Unavailable(
                "no coordinator is in sight; start one with: wattle coordinator --connect ...", code="NO_COORDINATOR"
            )

    async def owner(
        self,
        verb: str,
        args: dict[str, Any],
        missing: NotFound,
        patience: Patience | None = None,
        *,
        repeatable: bool = True,
    ) -> Any:
        """What the one coordinator that knows the thing answers, whatever became of others; raises ``missing`` when none does.

        ``repeatable`` says that it may be asked again while the owner may be about to answer.
        """
        found = await self._owner(verb, args, patience or self.patience(), repeatable)
        if found is None:
            raise missing
        return json.loads(found.payload)

    async def run(self, run: str, missing: NotFound) -> Any:
        """A run as it is now; of several coordinators that show it as their own, as the later owner does.

        One that was away while another took it over shows what it had until it hears of that. Who is slow to say anything is waited for no
        longer than a moment, when another shows the run.
        """
        key, answerers = self.keys.cmd("*", "run"), self._presence.newest("coordinator")
        if len(answerers) > 1:
            replies = await self._get(
                key,
                to_json({"run": run}),
                answerers=answerers,
                timeout=MOMENT,
                everyone=True,
                first=False,
                most=len(answerers),
            )
            shown = [json.loads(reply.payload) for reply in replies or () if reply.ok]
            if shown:
                return max(shown, key=owner_of)
        return await self.owner("run", {"run": run}, missing)

    async def _owner(
        self, verb: str, args: dict[str, Any], patience: Patience, repeatable: bool = True
    ) -> Reply | None:
        """The answer of the coordinator that knows the thing; None once all that might have said that they do not.

        While one of them is silent or out of sight all are asked again: a run that was acknowledged must not be called unknown.
        """
        key = self.keys.cmd("*", verb)
        while True:
            before = self._presence.newest("coordinator")
            question = to_json(args | {"wait": patience.wait} if "wait" in args else args)
            answerers, most = before if repeatable else (), len(before) or None
            replies = (
                await self._get(key, question, answerers=answerers, timeout=patience.timeout, everyone=True, most=most)
                or []
            )
            for reply in replies:
                if reply.ok:
                    return reply
            self._raise_refusal(replies)
            unheard = _unheard({peer.peer for peer in before}, replies)
            if patience.over or not unheard:
                break
            await trio.sleep(MOMENT)
        self._raise(replies)
        if unheard:
            names = " and ".join(map(repr, sorted(unheard)))
            raise Unavailable(
                f"coordinator {names} may know it and does not answer: ask again", code="OWNER_UNREACHABLE"
            )
        return None

    @staticmethod
    def _raise_refusal(replies: Iterable[Reply]) -> None:
        """Raise what the owner says against it: it answered, though others with a copy, which cannot know that, say it may not."""
        for reply in replies:
            error = _error(reply)
            if error.code == "NO_QUORUM" or not (error.code == NOT_HERE or isinstance(error, Unavailable)):
                raise error

    async def newest_workflow(self, name: str, missing: NotFound) -> tuple[str, Any]:
        """The definition that was stored last among those of all coordinators, and which one has it."""
        found = await self.everyone("workflow", {"name": name})
        if not found:
            raise missing
        return max(found, key=lambda answer: str(answer[1]["updated_at"]))

    async def holder(self, run: str) -> str | None:
        """The coordinator that has a run already, if one does."""
        found = await self._owner("run", {"run": run}, self.patience())
        return None if found is None else self.keys.cmd_peer(found.key)

    async def taker(self, name: str, run: str | None = None) -> str:
        """The coordinator for something new: the one that has that run already, or else the one that ``name`` falls to.

        The choice is the same at every gateway (rendezvous hashing) as long as they see the same coordinators.
        """
        coordinators = await self._coordinators()
        if not coordinators:
            self._raise(())
        if run is not None and len(self._known) > 1:
            holder = await self.holder(run)
            if holder is not None:
                return holder
        return ranked(coordinators, name)[0]

    async def _coordinators(self) -> list[str]:
        """The coordinators in sight; where there was one before, it is given a moment to come back: suspicion is not death."""
        names = self._presence.names("coordinator")
        for _ in range(round(COMEBACK / MOMENT) if self._had_coordinator else 0):
            if names:
                break
            await trio.sleep(MOMENT)
            names = self._presence.names("coordinator")
        self._had_coordinator = self._had_coordinator or bool(names)
        self._known.update(names)
        return names

    async def take(
        self, verb: str, name: str, payload: bytes, run: str | None = None, *, new: str | None = None, wait: float = 0.0
    ) -> Any:
        """What the coordinator answers that something new falls to (see ``taker``); the payload is safe to be sent twice.

        One that goes out of sight before it answers may have taken it, and told others: then whoever has that run is asked, or whose
        turn it is now. ``new`` is the run's id where nobody can have it yet. ``wait`` is how many seconds the run's end may be waited for.
        """
        patience = self.patience(wait)
        while True:
            coordinator = await self.taker(name, run)
            try:
                return await self.ask(coordinator, verb, payload, patience)
            except Unavailable as error:
                between = error.code in ("NO_COORDINATOR", "OWNER_UNREACHABLE")
                if not between or patience.over:
                    raise
            run = run or new
            await trio.sleep(MOMENT)

    async def ask(self, coordinator: str, verb: str, payload: bytes, patience: Patience | None = None) -> Any:
        """What one coordinator answers, which may wait with that for as long as ``patience`` has it wait."""
        wait = patience.wait if patience is not None else 0.0
        replies = await self._get(
            self.keys.cmd(coordinator, verb),
            payload,
            answerers=self._presence.newest("coordinator", coordinator),
            timeout=max(self.timeout, wait + LATE) + len(payload) / 1e6,
            parameters=f"wait={wait:g}" if wait else "",
        )
        for reply in replies or ():
            if reply.ok:
                return json.loads(reply.payload)
        self._raise(replies or ())
        raise Unavailable(f"coordinator {coordinator} did not answer {verb!r}", code="NO_COORDINATOR")

    async def runtime(self, node: str, verb: str) -> Any:
        """What a runtime answers to an order; one that coordinators see and this gateway does not yet is waited for."""
        answerers = self._presence.newest("runtime", node)
        if not answerers and await self.comes_back(node, self.patience()):
            answerers = self._presence.newest("runtime", node)
        if not answerers:
            raise NotFound(
                f"no node named {node!r} is in sight; wattle nodes lists those that are", code="NODE_NOT_FOUND"
            )
        replies = await self._get(self.keys.cmd(node, verb), answerers=answerers, timeout=self.timeout) or []
        for reply in replies:
            if reply.ok:
                return json.loads(reply.payload)
        self._raise_for_node(replies, node)
        raise Unavailable(f"node {node!r} did not answer", code="NODE_UNREACHABLE")

    async def log(self, key: str, place: dict[str, int], patience: Patience, node: str | None = None) -> Reply | None:
        """What the node that has a log answers; None when all say that they do not have it, or ``node``, which should, goes."""
        parameters = ";".join(f"{name}={value}" for name, value in {**place, "wait": patience.wait}.items())
        answerers = self._presence.newest("runtime", node) if node is not None else ()
        replies = await self._get(
            key, parameters=parameters, answerers=answerers, timeout=patience.timeout, everyone=True
        )
        for reply in replies or ():
            if reply.ok:
                return reply
        self._raise_for_node(replies or (), node)
        return None

    async def comes_back(self, node: str, patience: Patience) -> bool:
        """Whether a node that coordinators see, and this gateway does not, is back in time: a link between two is made again."""
        try:
            told = await self.everyone("nodes", {})
        except Unavailable:
            return False
        if not any(one["name"] == node and one["status"] not in AWAY for _, answer in told for one in answer["nodes"]):
            return False
        with trio.move_on_after(min(patience.timeout, self.timeout)):
            while True:
                await trio.sleep(MOMENT)
                if self._presence.newest("runtime", node):
                    return True
        return False

    async def reaches(self, node: str) -> bool:
        """Whether a runtime answers: one that is cut off may not be missed yet."""
        answerers = self._presence.newest("runtime", node)
        key = self.keys.state("runtime", node)
        replies = await self._get(key, answerers=answerers, timeout=self.timeout) if answerers else None
        return any(reply.ok for reply in replies or ())

    def _raise_for_node(self, replies: Iterable[Reply], node: str | None) -> None:
        for reply in replies:
            if reply.payload == TIMEOUT:
                who = "a node in sight" if node is None else f"node {node!r}"
                raise Unavailable(f"{who} did not answer in time", code="NODE_UNREACHABLE")
            raise _error(reply)

    async def ask_until(
        self, run: str, ask: Callable[[], Awaitable[Any]], enough: Callable[[Any], bool], *, wait: float, every: float
    ) -> Any:
        """Ask again with each event of a run, and every so many seconds should one have been missed.

        Ends with the first answer that is enough, or with what is answered after ``wait`` seconds.
        """
        news = trio.Event()

        def on_event(sample: Sample) -> None:
            if self.keys.is_of_run(sample.key, run):
                news.set()

        deadline = trio.current_time() + wait
        subscription = self.bus.subscribe(self.keys.events_near_run(run), on_event)
        try:
            while True:
                answer = await ask()
                left = deadline - trio.current_time()
                if enough(answer) or left <= 0:
                    return answer
                with trio.move_on_after(min(left, every)):
                    await news.wait()
                news = trio.Event()
        finally:
            subscription.undeclare()


def owner_of(run: Any) -> tuple[int, str]:
    """Who shows a run as their own; the higher is the later owner."""
    return run["epoch"], run["owner"]


def _unheard(asked: set[str], replies: Iterable[Reply]) -> set[str]:
    """The coordinators that may know what nobody has said to know: those asked that did not say so, and those that others tell of."""
    said = [_error(reply).detail[0] for reply in replies if _code(reply) == NOT_HERE]
    heard = {(told["peer"], told["store"]) for told in said}
    others = {(name, store) for told in said for name, store in told["others"]}
    return asked - {name for name, _ in heard} | {name for name, _ in others - heard}


def _code(reply: Reply) -> str:
    return "" if reply.ok or reply.payload == TIMEOUT else _error(reply).code


def _error(reply: Reply) -> WattleError:
    if reply.payload == TIMEOUT:
        return Unavailable("nobody answered in time; is the coordinator up?", code="TIMEOUT")
    try:
        return error_from_dict(json.loads(reply.payload))
    except (ValueError, AttributeError):
        return InternalError(f"an answer that is no error of Wattle's: {reply.payload[:200]!r}")
