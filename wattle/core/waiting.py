"""Why a ready worker waits, for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from wattle.core.model import WorkerStatus
from wattle.core.placement import NodeStatus, has_room
from wattle.core.run import Run, Worker

if TYPE_CHECKING:
    from wattle.core.coordinator import CoordinatorCore

NODES_SHOWN = 5


def why_waiting(core: CoordinatorCore, run: Run, worker: Worker) -> str | None:
    """Why a ready worker has not been given to a node; None when it has, or is not ready. At most NODES_SHOWN nodes are named."""
    if worker.status is not WorkerStatus.READY or worker.open or run.id not in core.runs:
        return None
    if worker.not_before is not None and worker.not_before > core.now:
        return f"tried again in {worker.not_before - core.now:.1f} s"
    if not core.succession.quorum:
        return f"waits for a quorum: {core.succession.peers_in_sight} of {core.options.quorum} peers are in sight"
    nodes = [node for node in core.nodes.values() if node.info.incarnation and node.status is not NodeStatus.LOST]
    if not nodes:
        return "no node is in sight"
    misfits = {node.info.name: worker.requirement.misfit(node.info) for node in nodes}
    fitting = [node for node in nodes if misfits[node.info.name] is None]
    if not fitting:
        reasons = [f"{name} {reason}" for name, reason in list(misfits.items())[:NODES_SHOWN]]
        more = f"; and {len(nodes) - NODES_SHOWN} more" if len(nodes) > NODES_SHOWN else ""
        return f"no node fits: {'; '.join(reasons)}{more}"
    if any(has_room(node, worker.requirement, core.options.prefetch_window) for node in fitting):
        return "is about to be placed"
    closed = Counter(node.status.value for node in fitting if node.status is not NodeStatus.READY)
    count = f"{len(fitting)} node" + ("s" if len(fitting) > 1 else "")
    return f"waits for room on {count}" + "".join(f", {n} of them {status}" for status, n in sorted(closed.items()))
