"""One process that hosts agents: a data folder, a bus, and one or more agents started and stopped together.

A SIGTERM or SIGINT makes a runtime hand back what waits and finish what runs within its ``stop_timeout``. A second one kills what runs
and hands it back as well. A third one ends this process alone, should a task's end not come: what runs then stays with the spawner, and
is found again by the next runtime on the folder.

A member of a secured cluster opens its session anew when the roster or its bundle changes: its agents end as they do when they are killed,
and start again in this process; what tasks run stays with the spawner meanwhile.

What belongs to one role is imported when an agent of that role starts: each costs megabytes, in every process.
"""

from __future__ import annotations

import gc
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from pydantic_core import to_json

from wattle import __version__, logs
from wattle.allocator import give_back_free_memory, limit_heaps
from wattle.bus.base import Bus, Query
from wattle.bus.config import lease_of
from wattle.bus.zenoh import open_zenoh_bus
from wattle.errors import SettingsError, StoreError, WattleError
from wattle.names import peer_name
from wattle.peer.claiming import claim_name, keep_name
from wattle.peer.presence import Presence, new_incarnation
from wattle.peer.probing import probing
from wattle.peer.reunion import Reunion
from wattle.protocol.keys import Alive, Keys
from wattle.protocol.messages import PROTOCOL
from wattle.protocol.records import timestamp
from wattle.sessions import finds_others, refuse_open_ways, zenoh_options
from wattle.settings import AgentSettings
from wattle.settings.agents import CoordinatorSettings, GatewaySettings, RuntimeSettings
from wattle.store.folder import FolderLock

if TYPE_CHECKING:
    from wattle.runtime.agent import RuntimeAgent
    from wattle.runtime.launching import Starting
    from wattle.security.membership import Membership
    from wattle.store.base import Store

SWITCH_INTERVAL = 1e-4
"""Seconds a thread may keep the interpreter while another waits for it. A message passes several threads (Zenoh's, trio's, the senders'),
and Python's own 5 ms each would be most of its way."""

COLLECT_AFTER = 10_000
"""Values made and not let go of until Python looks for circles among them. After its own 700 most of what a batch makes is still in use: it
was looked through in vain, and then taken for what stays, which had all that stays looked through again."""

log = logs.get_logger("wattle.host")

Life = Callable[..., Awaitable[None]]
Load = Callable[[], Mapping[str, AgentSettings]]


class Host:
    """The agents of one process."""

    def __init__(self, settings: Mapping[str, AgentSettings], *, at_rest: bool, load: Load | None = None) -> None:
        self._settings = settings
        self._load = load or (lambda: settings)
        self._secured: object = None  # what this life began with of what its membership comes to
        self._stopping = False
        self.next: Mapping[str, AgentSettings] | None = None  # what to start again with
        self._at_rest = at_rest
        self._first = next(iter(settings.values()))
        self._runtime: RuntimeAgent | None = None
        self._spawner: Starting | None = None
        self._stores: dict[str, Store] = {}
        self._broken: StoreError | None = None
        self._broke = trio.Event()

    def name(self, role: str) -> str:
        """A peer's name: the setting, but for agents that share a process with a runtime, which has it for itself."""
        return peer_name(self._settings[role].name, role, self._settings)

    async def run(self, ready: Callable[[list[str]], None]) -> None:
        """Start every agent, say ``ready`` with the endpoints, and serve until told to stop."""
        refuse_open_ways(self._first)
        with ExitStack() as stack:
            stack.callback(FolderLock(self._first.data).close)
            if "runtime" in self._settings:
                self._start_spawner(stack)
            for role in self._settings:  # before anybody can see this process: what cannot use its store does not join
                self._open_store(role, stack)
            bus = await open_zenoh_bus(zenoh_options(self._first))
            try:
                await self._serve(bus, ready)
            finally:
                with trio.CancelScope(shield=True):
                    await bus.close()

    async def _serve(self, bus: Bus, ready: Callable[[list[str]], None]) -> None:
        keys, lease = Keys(self._first.namespace), lease_of(zenoh_options(self._first))
        async with trio.open_nursery() as claims:
            for role in self._settings if finds_others(self._first) else ():
                claims.start_soon(partial(claim_name, bus, keys, role, self.name(role), lease=lease))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._stop_on_signal, nursery)
            nursery.start_soon(self._end_with_store)
            nursery.start_soon(give_back_free_memory)
            if self._first.bundle is not None:
                self._stay_member(bus, self._first.bundle, nursery)
            if bus.gossips:
                nursery.start_soon(Reunion(bus, keys, {self.name(role) for role in self._settings}).run)
            for role in self._settings:
                await nursery.start(self._live, self._life(role, bus), nursery.cancel_scope)
            gc.freeze()  # what is loaded stays: looking through it again took a full collection 15 ms
            gc.set_threshold(COLLECT_AFTER)
            ready(list(self._first.endpoints))

    @staticmethod
    async def _live(life: Life, scope: trio.CancelScope, task_status: trio.TaskStatus[None]) -> None:
        """One agent's life; when it ends by itself the others end too."""
        await life(task_status=task_status)
        scope.cancel()

    def _start_spawner(self, stack: ExitStack) -> None:
        """So that it starts while everything else does."""
        from wattle.runtime.launching import start_ahead

        self._spawner = start_ahead(self._settings["runtime"].data)
        if self._spawner is not None:
            stack.callback(self._spawner.give_up)

    def _open_store(self, role: str, stack: ExitStack) -> None:
        settings = self._settings[role]
        store: Store
        match settings:
            case CoordinatorSettings():
                from wattle.store.coordinator import CoordinatorStore

                store = CoordinatorStore(settings.data / "coordinator.db", synchronous=settings.synchronous)
            case RuntimeSettings():
                from wattle.store.runtime import RuntimeStore

                store = RuntimeStore(settings.data / "runtime.db", synchronous=settings.synchronous)
            case GatewaySettings() if settings.audited:
                from wattle.store.audit import NAME, AuditStore

                store = AuditStore(settings.data / NAME, most=settings.audit_most, synchronous=settings.synchronous)
            case _:
                return
        stack.callback(store.close)
        store.on_failure = self._store_failed
        self._stores[role] = store

    def _life(self, role: str, bus: Bus) -> Life:
        settings, name, store = self._settings[role], self.name(role), self._stores.get(role)
        match settings:
            case CoordinatorSettings():
                from wattle.coordinator.agent import CoordinatorAgent
                from wattle.store.coordinator import CoordinatorStore

                assert isinstance(store, CoordinatorStore)
                companions = frozenset({self.name("runtime")} if "runtime" in self._settings else ())
                return CoordinatorAgent(name, settings, bus, store, companions=companions).run
            case RuntimeSettings():
                from wattle.runtime.agent import RuntimeAgent
                from wattle.store.runtime import RuntimeStore

                assert isinstance(store, RuntimeStore)
                self._runtime = RuntimeAgent(name, settings, bus, store, at_rest=self._at_rest, spawner=self._spawner)
                return self._runtime.run
            case GatewaySettings():
                from wattle.gateway.agent import GatewayAgent

                if store is None:
                    return GatewayAgent(name, settings, bus).run
                from wattle.store.audit import AuditStore

                assert isinstance(store, AuditStore)
                return GatewayAgent(name, settings, bus, store).run
            case _:
                return partial(_router, name, bus, Keys(settings.namespace), settings.insecure)

    def _store_failed(self, error: StoreError) -> None:
        self._broken = self._broken or error
        self._broke.set()

    async def _end_with_store(self) -> None:
        """End every agent when a store fails, also where a request met the fault, which is answered with an error and forgotten."""
        await self._broke.wait()
        assert self._broken is not None
        raise self._broken

    # --- a secured cluster --------------------------------------------------------------------------------------------

    def _stay_member(self, bus: Bus, bundle: Path, nursery: trio.Nursery) -> None:
        from wattle.peer.rosters import Rosters, watch_file
        from wattle.security.membership import join

        membership = join(bundle, self._first.data)
        log.info("member of a cluster", certificate=membership.bundle.common_name, until=membership.bundle.expires_at)
        self._secured = self._of_membership(membership)
        rosters = Rosters(bus, membership, lambda newer: self._learned(newer, nursery))
        nursery.start_soon(rosters.run)
        nursery.start_soon(_warn_of_problems, membership)
        nursery.start_soon(watch_file, bundle, partial(self._start_again, nursery, "another bundle"))

    def _learned(self, membership: Membership, nursery: trio.Nursery) -> None:
        from wattle.security.membership import keep

        try:
            keep(membership, self._first.data)
        except SettingsError as error:  # without it the next start would know no more than this one
            log.error("the roster cannot be kept, so everything goes on as it was", reason=error.message)
            return
        if self._of_membership(membership) != self._secured:  # else it tells of nobody that a link to is possible
            self._start_again(nursery, "the roster")

    def _of_membership(self, membership: Membership) -> object:
        """What is taken of a membership when everything starts: the session's settings, and how a gateway checks tokens."""
        return membership.zenoh_values(), membership.token_keys if "gateway" in self._settings else ""

    def _start_again(self, nursery: trio.Nursery, why: str) -> None:
        """End everything, for ``run_agents`` to start it with the settings as they are now; what cannot be used changes nothing."""
        if self._stopping:
            return
        try:
            self.next = self._load()
        except SettingsError as error:
            log.error(f"{why} changed and cannot be used, so everything goes on as it was", reason=error.message)
            return
        log.info(f"{why} changed: the session is opened anew")
        nursery.cancel_scope.cancel()

    async def _stop_on_signal(self, nursery: trio.Nursery) -> None:
        with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            told = 0
            async for number in signals:
                told += 1
                self._stopping = True
                log.info("told to stop", signal=signal.Signals(number).name)
                if self._runtime is None or told > 2:
                    break
                if told == 1:
                    self._runtime.leave()
                else:
                    self._runtime.leave_at_once()
        nursery.cancel_scope.cancel()


async def _router(name: str, bus: Bus, keys: Keys, insecure: bool, task_status: trio.TaskStatus[None]) -> None:
    """A router is its session; Wattle adds a name to be seen by."""
    incarnation = new_incarnation()

    def answer_state(query: Query) -> None:
        state = {
            "role": "router",
            "name": name,
            "incarnation": incarnation,
            "namespace": keys.namespace,
            "version": __version__,
            "protocol": PROTOCOL,
            "insecure": insecure,
            "time": timestamp(time.time()),
        }
        query.reply(to_json(state), key=keys.state("router", name))
        query.finish()

    me = Alive("router", name, incarnation)
    presence = Presence(bus, keys)
    declarations = [bus.serve(keys.state("router", name), answer_state), bus.declare_alive(keys.alive(*me))]
    log.info("router ready")
    task_status.started()
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(keep_name, me, bus, keys)
            await probing(me, bus, keys, presence)
    finally:
        for declaration in reversed(declarations):
            declaration.undeclare()
        presence.close()


def run_agents(
    settings: Mapping[str, AgentSettings],
    *,
    ready: Callable[[list[str]], None],
    at_rest: bool = False,
    load: Load | None = None,
) -> None:
    """Run agents, one per role, until a signal stops them.

    The first role's settings say where the data is and how to join the network. ``ready`` is called with the endpoints once all
    agents serve. A runtime ``at_rest`` takes no work until it is told to resume. ``load`` gives the settings anew, for members of a
    secured cluster whose bundle is replaced. Raises WattleError when they cannot start, or cannot
    go on.
    """
    first = next(iter(settings.values()))
    role = "+".join(settings)
    logs.configure(level=first.log_level, format=first.log_format, file=first.log_file, role=role, peer=first.name)
    sys.setswitchinterval(SWITCH_INTERVAL)
    limit_heaps()
    try:
        say_ready = _once(ready)
        while True:
            host = Host(settings, at_rest=at_rest, load=load)
            trio.run(host.run, say_ready)
            if host.next is None:
                return
            settings = host.next
    except* WattleError as group:
        raise next(_leaves(group)) from None


def _once(ready: Callable[[list[str]], None]) -> Callable[[list[str]], None]:
    """Say it, unless it was said."""
    said = False

    def say(endpoints: list[str]) -> None:
        nonlocal said
        if not said:
            said = True
            ready(endpoints)

    return say


async def _warn_of_problems(membership: Membership) -> None:
    """Say what is wrong with a member's credentials, every day."""
    from wattle.security.membership import problems

    while True:
        for problem in problems(membership):
            log.warning(problem)
        await trio.sleep(86400)


def _leaves(group: BaseExceptionGroup[WattleError]) -> Iterator[WattleError]:
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            yield from _leaves(error)
        else:
            yield error
