"""Nodes coming and going, as the coordinator core follows them: in sight, unreachable, lost, back again.

A liveliness token that goes is suspicion, not death (design rule 5): the node is ``unreachable`` for ``lost_after`` seconds, then ``lost``,
and its open attempts become lost attempts of workers that are tried elsewhere. A node that comes back tells what it still holds: what is
wanted goes on, what is not is cancelled, what it never received is sent again with the same identity.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from wattle.core import effects as do
from wattle.core import events as on
from wattle.core.model import NodeInfo, TaskId, TaskRecord, TaskStatus
from wattle.core.placement import Node, NodeStatus, Pool
from wattle.core.run import Run, Worker
from wattle.core.states import TaskEvent, WorkerEvent

if TYPE_CHECKING:
    from wattle.core.coordinator import CoordinatorCore

RESEND_FIRST, RESEND_MOST = 0.5, 5.0
"""Seconds until a command that nobody answered is sent again, doubling from the first to the most."""

HOLD_FIRST, HOLD_MOST = 0.5, 60.0
"""Seconds a node that handed work back is given no more, doubling from the first to the most until it finishes something."""

IN_SIGHT = (NodeStatus.READY, NodeStatus.DRAINING)


class Membership:
    """The nodes of one coordinator core, and what follows from their coming and going."""

    def __init__(self, core: CoordinatorCore) -> None:
        self.core = core
        self.pool = Pool()
        self._clocked: set[str] = set()  # nodes for which something becomes due at some time
        self._given_up: dict[str, None] = {}  # nodes in the order in which they were; some are back since
        self._followed: set[str] | None = None  # once feeds are to be read again: nodes whose feeds are, or need not be

    # --- in and out of sight ------------------------------------------------------------------------------------------

    def expect(self, name: str) -> Node:
        """The node of that name; one not seen yet counts as out of sight until it shows itself."""
        node = self.pool.nodes.get(name)
        if node is None:
            node = self._new(NodeInfo(name, incarnation="", store="", slots=0), NodeStatus.UNREACHABLE)
            self._give_time(node)
        return node

    def book(self, name: str, task: TaskId, resources: Mapping[str, float]) -> None:
        """Note that a node has a task; one that was given up counts as out of sight again, and is given its time."""
        node = self.expect(name)
        if node.status is NodeStatus.LOST:
            node.status = NodeStatus.UNREACHABLE
            self._give_time(node)
        node.take(task, resources)

    def _new(self, info: NodeInfo, status: NodeStatus) -> Node:
        node = self.pool.nodes[info.name] = Node(info, status, self.pool.changed)
        return node

    def _give_time(self, node: Node) -> None:
        node.lost_at = self.core.now + self.core.options.lost_after
        self._clocked.add(node.info.name)

    def seen(self, event: on.NodeSeen) -> None:
        """A node is in sight: settle with it who holds what."""
        node = self.pool.nodes.get(event.info.name) or self._new(event.info, NodeStatus.READY)
        if node.info.store not in ("", event.info.store):
            self._give_up(node, "its node came back with an empty data folder")
        self._update(node, event.info)
        node.lost_at = node.resend_at = node.hold_until = None
        node.hold_delay = node.resend_delay = 0.0
        self.settle_held(node, event.held)
        self.send_cancels(node)
        for run_id, epoch in self.core.recall.claims():
            if event.claimed.get(run_id) == epoch:
                node.claims.pop(run_id, None)
                self.core.recall.heard(run_id, event.info.name)
            else:  # taken up, perhaps once more, while the node was being asked
                node.claims[run_id] = epoch
                self.core.recall.not_asked(run_id, event.info.name)
        self._send_claims(node)
        self.core.replication.came()
        self.core.succession.met(event.info.name)

    def settle_held(self, node: Node, held: Mapping[TaskId, int], runs: Collection[str] | None = None) -> None:
        """Settle with a node who holds what, of all runs or of some."""
        for task, epoch in held.items():
            self._still_held(node, task, epoch)
        for task in [t for t in node.tasks if t not in held and (runs is None or t.run in runs)]:
            self._not_held(node, task)

    def claim(self, name: str, run: Run) -> None:
        """Tell a node in sight that a run is this coordinator's now, and ask what it knows of it."""
        node = self.expect(name)
        node.claims[run.id] = run.epoch
        self.core.acts.append(do.Claim(name, ((run.id, run.epoch),)))

    def claim_no_more(self, run: Run) -> None:
        """A run has ended. What nodes know of it and have not told yet is read in their feeds, where it was adopted.

        Where no feed has been read again since this coordinator started, it was adopted in an earlier life, which may have ended before
        nodes in sight had answered: those that have not been met since are no more asked either.
        """
        unheard = [name for name, node in self.pool.nodes.items() if node.claims.pop(run.id, None) is not None]
        if run.adopted and (unheard or self._followed is None):
            self.read_again(unheard)

    def _send_claims(self, node: Node) -> None:
        for run_id in [run_id for run_id in node.claims if run_id not in self.core.runs]:
            del node.claims[run_id]
        if node.claims:
            self.core.acts.append(do.Claim(node.info.name, tuple(node.claims.items())))

    def _still_held(self, node: Node, task: TaskId, epoch: int) -> None:
        self.core.recall.discover(node, task, self.core.now)
        found = self.core.attempts.find(task)
        if found is None or found[1].status.final or found[0].cancel_requested or found[2].node != node.info.name:
            current = self.core.runs.get(task.run)
            node.cancels[task] = epoch if current is None else current.epoch
            return
        run, worker, record = found
        if record.status is TaskStatus.LOST and record.completed_at is not None:
            return  # the node has said since that it lost it
        if record.status is TaskStatus.LOST:
            self.core.attempts.advance(worker, record, TaskEvent.FOUND)
            node.take(task, worker.spec.resources)
            if not self.core.move(run, worker, WorkerEvent.STARTED):
                self.core.announce(run, worker)
            return
        self.core.attempts.accepted(worker, record)
        self.core.announce(run, worker)

    def _not_held(self, node: Node, task: TaskId) -> None:
        found = self.core.attempts.find(task)
        if found is None:
            node.release(task)
            return
        run, worker, record = found
        if task in node.passed:
            self._handed_back(node, run, worker, record, node.passed[task])
            return
        if worker.status.final:
            # It is known only since the run was cancelled; the node says what became of it.
            self.cancel(node.info.name, task, run.epoch)
            return
        node.again.add(task)
        self._send_again(node, task)
        self.core.announce(run, worker)

    def changed(self, event: on.NodeChanged) -> None:
        """A node in sight says something new of itself."""
        node = self.pool.nodes.get(event.info.name)
        if node is not None and node.status in IN_SIGHT and node.info.incarnation == event.info.incarnation:
            self._update(node, event.info)

    def _update(self, node: Node, info: NodeInfo) -> None:
        before = node.info
        node.info = info
        node.status = NodeStatus.DRAINING if info.draining else NodeStatus.READY
        if (before.resources, before.labels) != (info.resources, info.labels):
            self.pool.refit()
        self.pool.changed.append(info.name)

    def unreachable(self, event: on.NodeUnreachable) -> None:
        """A node's token is gone: suspicion."""
        self.core.succession.disappeared(event.node, event.incarnation)
        node = self.pool.nodes.get(event.node)
        if node is None or node.info.incarnation != event.incarnation or node.status not in IN_SIGHT:
            return
        node.status = NodeStatus.UNREACHABLE
        node.resend_at = None
        node.ending.clear()  # should it come back, it tells what it holds
        if node.claims:
            for run_id in list(node.claims):
                self.core.recall.heard(run_id, event.node)
            adopted = any(self.core.runs[run_id].adopted for run_id in node.claims if run_id in self.core.runs)
            node.claims.clear()  # they are repeated when it is met again, for runs that have not ended until then
            node.passed.clear()
            if adopted:
                self.read_again()
        self.core.replication.went(event.node)
        self.core.succession.node_gone(event.node)
        self._give_time(node)
        for task in node.tasks:
            found = self.core.attempts.find(task)
            if found is not None:
                self.core.announce(found[0], found[1], unreachable=True)

    def in_sight(self, name: str) -> bool:
        """Whether a node can be talked to now."""
        node = self.pool.nodes.get(name)
        return node is not None and node.status in IN_SIGHT

    def names_in_sight(self) -> list[str]:
        """The nodes that can be talked to now."""
        return [name for name, node in self.pool.nodes.items() if node.status in IN_SIGHT and node.info.incarnation]

    def in_sight_count(self) -> int:
        """How many nodes can be talked to now."""
        return len(self.names_in_sight())

    def may_return(self, name: str) -> bool:
        """Whether a node is out of sight and not given up."""
        node = self.pool.nodes.get(name)
        return node is not None and node.status is NodeStatus.UNREACHABLE

    def _give_up(self, node: Node, reason: str) -> None:
        name = node.info.name
        self.core.acts.append(do.Withdraw(name))
        node.cancels.clear()  # should it come back, it tells what it holds
        node.ending.clear()
        for task in list(node.tasks):
            node.release(task)
            found = self.core.attempts.find(task)
            if found is None:
                continue
            run, worker, record = found
            if self.core.attempts.advance(worker, record, TaskEvent.LOST, error_message=reason) is not None:
                self.core.attempts.lost(run, worker, reason)

    def read_again(self, nodes: Iterable[str] = ()) -> None:
        """Have the feeds of nodes out of sight read from their start when they are met again, those of ``nodes`` also now.

        A run was adopted that they cannot be asked about now, and what they said of it was no concern of this coordinator's before.
        They may come back after its end, when nobody asks them any more. An ended run's nodes are not asked about it: ``nodes`` are those
        that may have told the ends of its attempts already.
        """
        self._followed = set(self.names_in_sight()) - set(nodes)
        self.core.saves.append(do.ReadAgain(frozenset(self._followed)))

    # --- facts ----------------------------------------------------------------------------------------------------------

    def facts(self, event: on.FactsLearned) -> None:
        """One entry of a node's feed."""
        node = self.expect(event.node)
        if self._followed is not None and event.node not in self._followed:
            if event.number > 1 and not event.first:
                return  # read before it was known that all of it is needed
            self._followed.add(event.node)
        for fact in event.facts:
            self.core.attempts.learn(node, fact)
        if any(fact.status is TaskStatus.SUCCEEDED for fact in event.facts):
            node.hold_delay = 0.0
        if self._followed is None or event.node in self._followed:  # else one of these facts has it read again
            self.core.saves.append(do.SaveCursor(event.node, event.store, event.number))

    # --- commands and their answers -----------------------------------------------------------------------------------

    def cancel(self, name: str, task: TaskId, epoch: int) -> None:
        """Have a task ended, now or when its node is back in sight; once is enough."""
        node = self.expect(name)
        if task in node.cancels:
            return
        node.cancels[task] = epoch
        if node.status in IN_SIGHT:
            self.core.acts.append(do.Cancel(name, task, epoch))

    def send_cancels(self, node: Node) -> None:
        """Have a node end what it is to end, should it be in sight."""
        if node.status not in IN_SIGHT:
            return
        for task, epoch in node.cancels.items():
            self.core.acts.append(do.Cancel(node.info.name, task, epoch))

    def _send_again(self, node: Node, task: TaskId) -> None:
        found = self.core.attempts.find(task)
        if not self.core.succession.quorum:
            self._resend_later(node)
        elif found is not None and task not in node.cancels and task not in node.passed:
            run, worker, _ = found
            self.core.acts.append(do.Assign(node.info.name, run.assignment(worker, task.attempt)))

    def delivered(self, event: on.Delivered) -> None:
        """A node has stored tasks."""
        node = self.expect(event.node)
        node.resend_delay = 0.0
        node.again.difference_update(event.tasks)
        for task in event.tasks:
            found = self.core.attempts.find(task)
            if found is not None:
                self.core.attempts.accepted(found[1], found[2])

    def cancel_answered(self, event: on.CancelAnswered) -> None:
        """A node has taken note of orders to end tasks that it has: until it has told their ends, it is asked for them."""
        node = self.expect(event.node)
        node.resend_delay = 0.0
        for task in event.tasks:
            if node.cancels.pop(task, None) is not None and node.status in IN_SIGHT:
                node.ending.add(task)

    def undelivered(self, event: on.Undelivered) -> None:
        """A command got no answer."""
        self._resend_later(self.expect(event.node))

    def _resend_later(self, node: Node) -> None:
        if node.status in IN_SIGHT and node.resend_at is None:
            node.resend_delay = min(max(2 * node.resend_delay, RESEND_FIRST), RESEND_MOST)
            node.resend_at = self.core.now + node.resend_delay
            self._clocked.add(node.info.name)

    def refused(self, event: on.Refused) -> None:
        """A node did not take a task, or an order to end one."""
        node = self.expect(event.node)
        node.again.discard(event.task)
        if event.code in ("OVER", "PASSED"):
            node.cancels.pop(event.task, None)
        run = self.core.runs.get(event.task.run)
        if event.code == "FENCED":
            order = node.cancels.pop(event.task, None)
            if run is None or not self.core.ownership.overruled(run, event.owner, event.epoch):
                if order is not None and event.owner == self.core.name:
                    node.cancels[event.task] = event.epoch
                self._resend_later(node)  # it was sent in an earlier epoch of our own
            return
        found = self.core.attempts.find(event.task)
        if found is None:
            return
        run, worker, record = found
        if event.code == "OVER":
            if run.id not in node.claims:  # have its end told again, should it have been no concern here then
                self.claim(event.node, run)
            return
        if event.code == "PASSED":
            self._passed(node, run, record, event.reason)
        else:
            self._handed_back(node, run, worker, record, event.reason)

    def _passed(self, node: Node, run: Run, record: TaskRecord, reason: str) -> None:
        """Another owner gave a node later attempts: whether this one has ended there it tells with all it knows of the run.

        The next attempt is to have a number above theirs, too.
        """
        if record.id in node.tasks and record.id not in node.passed and node.status in IN_SIGHT:
            node.passed[record.id] = reason
            self.claim(node.info.name, run)

    def _handed_back(self, node: Node, run: Run, worker: Worker, record: TaskRecord, reason: str) -> None:
        """An attempt has never been at its node, and will not be."""
        self.core.attempts.advance(worker, record, TaskEvent.RETURNED, completed_at=self.core.now, error_message=reason)
        node.release(record.id)
        self.hold_back(node)
        self.core.attempts.returned(run, worker, reason)

    def hold_back(self, node: Node) -> None:
        """Give a node that handed work back some time, longer each time; what it hands back within that time is the same time."""
        if node.hold_until is not None:
            return
        node.hold_delay = min(max(2 * node.hold_delay, HOLD_FIRST), HOLD_MOST)
        node.hold_until = self.core.now + node.hold_delay
        node.mean_seconds = None  # and nothing ahead of time until tasks are seen to be short again
        self._clocked.add(node.info.name)

    # --- time ---------------------------------------------------------------------------------------------------------

    def check_clocks(self) -> None:
        """Do what has become due: give nodes up, send again what got no answer, end the time a node was held back."""
        now = self.core.now
        for name in sorted(self._clocked):
            node = self.pool.nodes[name]
            if node.hold_until is not None and now >= node.hold_until:
                node.hold_until = None
                self.pool.changed.append(name)
            if node.lost_at is not None and now >= node.lost_at:
                node.status, node.lost_at = NodeStatus.LOST, None
                self._give_up(node, f"its node {name} was out of sight for {self.core.options.lost_after:g} s")
                self._given_up.pop(name, None)
                self._given_up[name] = None
            if node.resend_at is not None and now >= node.resend_at:
                node.resend_at = None
                for task in [t for t in node.tasks if t in node.again or self._unanswered(t)]:
                    self._send_again(node, task)
                self.send_cancels(node)
                self._send_claims(node)
            if not _due(node):
                self._clocked.discard(name)
        self._forget_lost()

    def _forget_lost(self) -> None:
        """Forget the nodes given up first, once they are many: names that come and go must not fill the memory.

        A node without attempts is only something to show. Should it come back, or its name come up, it is a new one.
        """
        while len(self._given_up) > self.core.options.lost_shown:
            name = next(iter(self._given_up))
            del self._given_up[name]
            node = self.pool.nodes[name]
            if node.status is NodeStatus.LOST and not node.tasks:
                del self.pool.nodes[name]
                self._clocked.discard(name)
                self.pool.refit()

    def _unanswered(self, task: TaskId) -> bool:
        found = self.core.attempts.find(task)
        return found is not None and found[2].status is TaskStatus.ASSIGNED

    def moments(self) -> Iterable[float]:
        """When ``check_clocks`` has something to do."""
        return (moment for name in self._clocked for moment in _due(self.pool.nodes[name]))


def _due(node: Node) -> list[float]:
    return [moment for moment in (node.hold_until, node.lost_at, node.resend_at) if moment is not None]
