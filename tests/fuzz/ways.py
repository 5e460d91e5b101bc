"""The ways into agents, each with payloads that fit: every public request, every command, state, feed, log, content, and every answer.

Public requests come from the gateway's own table. For the rest a test compares with what agents serve, so that nothing new is forgotten.
"""

from __future__ import annotations

import json
import re
from functools import partial
from random import Random
from typing import Any, NamedTuple, cast

from tests.fuzz import corpus
from tests.fuzz.mutate import Mutator
from tests.network.bad_inputs import TABLE
from wattle.core.model import (
    CopiedRun,
    CopyPage,
    NodeInfo,
    RunHead,
    RunRecord,
    RunStatus,
    TaskRecord,
    TaskStatus,
    WorkerRecord,
    WorkerStatus,
)
from wattle.gateway.request import Method
from wattle.gateway.routes import Routes
from wattle.protocol.messages import (
    AssignBatch,
    CancelBatch,
    CopiesAnswer,
    CopiesQuestion,
    CopyAnswer,
    CopyQuestion,
    Discard,
    FactsAnswer,
    FactsQuestion,
    FeedPage,
    ForgetOrder,
    HeldQuestion,
    HeldTasks,
    KeepAnswer,
    PrunedQuestion,
    TaskAnswers,
    encode,
)
from wattle.store.owned import Submission, document_row, run_row, task_row, worker_row

GOOD: dict[str, Any] = {"name": "good", "workers": [{"name": "a", "command": "true", "place": {"node": "node1"}}]}
DONE: dict[str, Any] = {"name": "done", "workers": [{"name": "a", "command": "true", "place": {"node": "node2"}}]}
OWNER, STORE, NODE, GONE = (
    "c1",
    "s1",
    "node1",
    "gone",
)  # who is there; and an owner that is not, whose runs are to be adopted

COMMANDS: dict[str, tuple[type, ...]] = {
    "assign": (AssignBatch,), "cancel": (CancelBatch,), "held": (HeldQuestion,), "facts": (FactsQuestion,), "keep": (CopyPage,),
    "copies": (CopiesQuestion,), "copy": (CopyQuestion,), "forget": (ForgetOrder,), "discard": (Discard,), "pruned": (PrunedQuestion,),
    "drain": (), "resume": (),
}  # fmt: skip
"""Commands between peers and what they carry."""

ANSWERS: dict[str, type] = {
    "state": NodeInfo, "feed": FeedPage, "assign": TaskAnswers, "cancel": TaskAnswers, "held": HeldTasks, "facts": FactsAnswer,
    "keep": KeepAnswer, "copies": CopiesAnswer, "copy": CopyAnswer, "forget": ForgetOrder, "pruned": Discard,
}  # fmt: skip
"""What is answered to questions that agents ask of peers."""

REQUESTS: dict[str, tuple[Any, ...]] = {
    "run": ({"run": "good", "wait": 0.01}, {"run": "done"}),
    "runs": ({"workflow": "good", "status": "running", "limit": 5, "after": [1.5, "good"]},),
    "workers": ({"run": "good", "limit": 3, "after": 0, "status": "ready"},), "worker": ({"run": "good", "worker": "a"},),
    "workflow": ({"workflow": "good"}, {"name": "good"}), "workflows": ({"status": None, "after": "a", "limit": 2},),
    "cancel_run": ({"run": "good"},), "retry_run": ({"run": "done"}, {"run": "good"}), "nodes": ({},),
    "submit": ({"document": DONE, "params": {}, "run": "r2"}, {"document": json.dumps(GOOD), "run": "r3"}), "put_workflow": (GOOD, DONE),
    "start": ({"name": "good", "params": {}, "run": "r"},), "delete_workflow": ({"name": "good"},),
    "prune": ({"runs": ["good", "done"]}, {"older_than": 0, "check": True}),
}  # fmt: skip
"""Requests that gateways pass on to coordinators."""

PARAMETERS = (
    "",
    "",
    "",
    "?limit=2",
    "?limit=2;after=a;status=running",
    "?wait=0.01",
    "?offset=1;limit=5;attempt=1;tail=3;wait=0.01",
    "?attempt=1;node=n1;offset=1;wait=0.01",
    "?workflow=good",
)
NAMES = {
    "workflow": ("good",),
    "run": ("good", "done"),
    "worker": ("a",),
    "stream": ("stdout", "stderr"),
    "node": ("node1", "node2"),
}


class Way(NamedTuple):
    """A way in: how, on which key (below ``wattle/default/``, perhaps with parameters), with which payloads to start from."""

    how: str
    path: str
    payloads: tuple[str, ...] = ()


PROBES = tuple(
    json.dumps({"peers": peers, **more})
    for peers in ([], [["runtime", "node1"], ["coordinator", "c1"]], [["gateway", "gone"]])
    for more in ({}, {"ask": False})
)
VIEW = {
    "role": "runtime",
    "name": NODE,
    "incarnation": "i",
    "time": "2026-01-01T00:00:00Z",
    "session": "s",
    "links": [],
    "others": [],
}


def _public() -> list[Way]:
    documents = [*(json.dumps(value) for value in (GOOD, DONE)), *corpus.json_documents()]
    bodies = (
        *documents,
        *(json.dumps(v) for v in ({"document": DONE, "params": {}, "run": "r1"}, {"params": {}, "run": "r4"})),
    )
    bodies = (*bodies, *(json.dumps(value) for value in REQUESTS["prune"]))
    found = []
    hows = {Method.GET: "get", Method.POST: "get", Method.PUT: "put", Method.DELETE: "delete"}
    for method, pattern, *_ in Routes(cast(Any, None), cast(Any, None), cast(Any, None)).table:
        for index in range(2):
            path = re.sub("<([a-z]+)>", lambda name: NAMES[name[1]][index % len(NAMES[name[1]])], pattern)  # noqa: B023  # used at once
            found += [
                Way(hows[method], f"api/v1/{path}{parameters}", bodies if method is not Method.GET else ())
                for parameters in (PARAMETERS if method is Method.GET else ("",))
            ]
    bad = sorted({bad.path for part in TABLE.values() for bad in part if len(bad.path) < 100})
    hows_of_bad = ("get", "put", "delete")
    return found + [
        Way(hows_of_bad[number % 3], f"api/v1/{path}", bodies) for number, path in enumerate(bad) if number % 2
    ]


def told(kind: type) -> tuple[str, ...]:
    """Messages of a type, about what is there: samples with names that mean something, facts and states of every sort."""
    found = []
    for sample in corpus.samples(kind):
        text = encode(sample).decode()
        for name, value in (
            ("run", "good"),
            ("worker", "a"),
            ("owner", OWNER),
            ("store", STORE),
            ("name", NODE),
            ("digest", "0" * 64),
        ):
            text = text.replace(f'"{name}":"w"', f'"{name}":"{value}"')
        found.append(text)
        if '"kind":"started"' in text:
            finished = text.replace('"kind":"started"', '"kind":"finished"')
            found += [finished.replace('"status":"assigned"', f'"status":"{status}"') for status in TaskStatus]
        if f'"owner":"{OWNER}"' in text:
            found.append(text.replace(f'"owner":"{OWNER}"', f'"owner":"{GONE}"'))
    return tuple(dict.fromkeys(found))


def pages(random: Random) -> tuple[list[str], list[str], list[str]]:
    """Copies of a run whose owner is gone, with rows that are nearly sound: as pages, as answers, and the answer that tells of them."""
    run = RunRecord("adopted", "done", RunStatus.RUNNING, GONE, 1, 1.0, started_at=2.0, counts={"running": 1})
    worker = WorkerRecord("adopted", "a", WorkerStatus.RUNNING, attempts=1, started_at=2.0)
    task = TaskRecord("adopted", "a", 1, NODE, TaskStatus.RUNNING, 1.5, started_at=2.0)
    rows = [
        run_row(run),
        document_row(Submission(json.dumps(DONE), "0" * 64, {})),
        worker_row(worker),
        task_row(task),
        (f"h/{'0' * 64}/{NODE}", ""),
    ]
    mutators = [Mutator(random, jsons=[body or "{}"]) for _, body in rows]
    head = RunHead("adopted", GONE, "x", 1, number=1)
    copies, answers = [], []
    for number in range(40):
        changed = [
            (k, m.some_json(number % 3))
            for (k, _), m in zip(rows, mutators, strict=True)
            if random.random() < 0.97 or not number
        ]
        page = CopyPage(GONE, "x", 0, 1, (CopiedRun("adopted", 1, tuple(changed), head),))
        copies.append(encode(page).decode("utf-8", "replace"))
        answers.append(encode(CopyAnswer(tuple(changed))).decode("utf-8", "replace"))
    return copies, answers, [encode(CopiesAnswer((head,), sees)).decode() for sees in ((), ("c1", "c2"), (GONE,))]


def ways(random: Random) -> list[Way]:
    """Every way in."""
    copies, _, _ = pages(random)
    found = _public()
    for verb, kinds in COMMANDS.items():
        payloads = tuple(text for kind in kinds for text in told(kind)) + (tuple(copies) if verb == "keep" else ())
        found += [Way("get", f"cmd/{peer}/{verb}", payloads) for peer in ("c1", "node1", "node2", "*")]
    for verb, bodies in REQUESTS.items():
        found += [Way("get", f"cmd/{peer}/{verb}", tuple(map(json.dumps, bodies))) for peer in ("c1", "c2", "*")]
    others = [
        Way("get", "cmd/c1/**"), Way("put", "cmd/node2/assign", told(AssignBatch)), Way("get", "**"), Way("get", "*/**"),
        Way("put", "feed/node1", told(FeedPage)), Way("put", "feed/node2", told(FeedPage)), Way("put", "feed/**", told(FeedPage)),
        Way("get", "feed/node2?after=1"), Way("get", "feed/*"), Way("get", "state/**"), Way("get", "state/*/*"),
        Way("get", "state/gateway/g1"),
        Way("get", "state/coordinator/c1"), Way("get", "state/runtime/node2"),
        Way("put", "state/runtime/node1", told(NodeInfo)), Way("put", "state/runtime/stranger", told(NodeInfo)),
        Way("delete", "feed/node1"),
        Way("delete", "state/runtime/node1"), Way("get", f"blob/{'0' * 64}"), Way("get", f"blob/{'0' * 64}/node2?offset=1;limit=5"),
        Way("get", "log/done/a/1/stdout?offset=1;limit=5;tail=3;wait=0.01"), Way("get", "log/**"),
        Way("put", "log/done/a/1/stdout", ("{}",)),
        Way("put", "event/rejected", ("{}",)), Way("put", "event/runs/good", ("{}",)), Way("put", "event/runs/good/workers/a", ("{}",)),
        Way("alive", "alive/runtime/stranger/i1"), Way("alive", "alive/coordinator/c3/i1"), Way("alive", "alive/gateway/g1/i2"),
        *(Way("get", f"cmd/{peer}/probe", PROBES) for peer in ("c1", "g1", "node2", "*")),
        Way("alive", "alive/runtime/node1/i2"), Way("alive", "alive/**"), Way("alive", "duty/stranger/i1"),
        Way("alive", "alive/coordinator/c1/0"), Way("alive", "alive/runtime/node2/0"), Way("alive", "alive/gateway/node2/z"),
    ]  # fmt: skip
    return [*found, *others, *others]


def answers(random: Random) -> dict[str, Mutator]:
    """What a stranger may answer to each question."""
    _, copies, heads = pages(random)
    more = {"copy": copies, "copies": heads}
    found = {verb: Mutator(random, jsons=[*told(kind), *more.get(verb, ())]) for verb, kind in ANSWERS.items()}
    return found | {"probe": Mutator(random, jsons=[json.dumps(VIEW)])}


named = partial(re.compile(r"[?].*").sub, "")
"""A way's path without its parameters."""
