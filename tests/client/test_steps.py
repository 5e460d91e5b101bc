"""Retries, long polls, watching and following, performed by a script instead of a network."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.client.fake_gateway import T0, worker
from wattle.bus.base import Reply, Sample
from wattle.client import following, requests, steps
from wattle.client.answers import WorkerChange
from wattle.client.steps import Ask, Emit, Happening, Next, Pause, Policy, Steps
from wattle.errors import InternalError, NotFound, Unavailable
from wattle.protocol.keys import Keys
from wattle.protocol.records import WAITING_SUBMISSION, RunView

KEYS = Keys()


def run(status: str = "running", **counts: int) -> dict[str, Any]:
    return {"id": "r", "workflow": "w", "status": status, "created_at": T0, "owner": "c", "epoch": 1, "counts": counts}


def good(value: Any, **attachment: Any) -> list[Reply]:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return [Reply("k", data, attachment=json.dumps(attachment).encode() if attachment else None)]


def bad(code: str) -> list[Reply]:
    return [Reply("", json.dumps({"code": code, "message": ""}).encode(), ok=False)]


NOBODY: list[Reply] = []


class Stage:
    """Performs steps: requests are answered by ``answer``, events come from ``events``, and time passes only by waiting."""

    def __init__(self, answer: Callable[[str, dict[str, str]], list[Reply]]) -> None:
        self.now = 0.0
        self.answer = answer
        self.events: list[Happening | None] = []
        self.asked: list[str] = []
        self.policy = Policy(lambda: self.now, "here", timeout=1.0, patience=10.0, first_contact=2.0)

    def play(self, operation: Steps[Any, Any]) -> tuple[list[Any], Any]:
        items: list[Any] = []
        outcome: Any = None
        while True:
            try:
                step = operation.send(outcome)
            except StopIteration as end:
                return items, end.value
            outcome = None
            match step:
                case Emit(value):
                    items.append(value)
                case Pause(seconds):
                    self.now += seconds
                case Next(seconds):
                    outcome = self.events.pop(0) if self.events else None
                    self.now += seconds if outcome is None else 0
                case Ask(request):
                    self.asked.append(str(request))
                    assert len(self.asked) < 500, "asked without end"
                    parameters = dict(item.split("=") for item in request.parameters.split(";") if item)
                    outcome = self.answer(request.path, parameters)


def script(*replies: list[Reply]) -> Callable[[str, dict[str, str]], list[Reply]]:
    """Answers in order, the last one for ever."""
    rest = list(replies)
    return lambda path, parameters: rest.pop(0) if len(rest) > 1 else rest[0]


def event(**change: Any) -> Happening:
    change = {"run": "r", "at": None, "node": "n", **change}
    return Happening(Sample(KEYS.event_worker("r", change["name"]), json.dumps(change).encode()))


# --- asking


def test_a_lost_answer_is_asked_for_again() -> None:
    stage = Stage(script(bad("BUSY"), [Reply("", b"Timeout", ok=False)], good(run())))
    assert stage.play(steps.ask(stage.policy, requests.submit({}, None, "r")))[1].id == "r"
    assert len(stage.asked) == 3


def test_what_may_not_be_repeated_is_sent_once_but_for_nobody_there() -> None:
    stage = Stage(script(NOBODY, [Reply("", b"Timeout", ok=False)]))
    with pytest.raises(Unavailable) as caught:
        stage.play(steps.ask(stage.policy, requests.retry("r")))
    assert (caught.value.code, len(stage.asked)) == ("TIMEOUT", 2)


def test_a_network_never_heard_of_is_given_up_soon_with_advice() -> None:
    stage = Stage(script(NOBODY))
    with pytest.raises(Unavailable, match=r"no gateway answers at here.*wattle up") as caught:
        stage.play(steps.ask(stage.policy, requests.run("r")))
    assert caught.value.code == "NO_GATEWAY"
    assert stage.now <= 2.0


def test_a_network_heard_of_before_is_waited_for_longer() -> None:
    stage = Stage(script(good(run()), NOBODY))
    stage.play(steps.ask(stage.policy, requests.run("r")))
    with pytest.raises(Unavailable):
        stage.play(steps.ask(stage.policy, requests.run("r")))
    assert 5.0 < stage.now <= 10.0


def test_a_gateway_that_held_the_first_request_until_it_was_killed_is_waited_for_like_one_never_met() -> None:
    def answer(path: str, parameters: dict[str, str]) -> list[Reply]:
        if len(stage.asked) == 1:
            stage.now += 15  # held back, as long polls are, and then nobody answers
        return good(run("succeeded")) if len(stage.asked) > 3 else NOBODY

    stage = Stage(answer)
    assert stage.play(steps.wait(stage.policy, "r", 60.0))[1].status == "succeeded"


def test_a_long_poll_whose_gateway_is_gone_unnoticed_is_asked_again() -> None:
    """What is sent in the moment in which a link breaks may get no answer at all, for as long as it was to be held and longer."""

    def answer(path: str, parameters: dict[str, str]) -> list[Reply]:
        if len(stage.asked) > 1:
            return good(run("succeeded"))
        stage.now += 21
        return [Reply("", b"Timeout", ok=False)]

    stage = Stage(answer)
    assert stage.play(steps.wait(stage.policy, "r", 60.0))[1].status == "succeeded"


def test_a_long_poll_that_is_never_answered_is_given_up() -> None:
    def answer(path: str, parameters: dict[str, str]) -> list[Reply]:
        stage.now += 21
        return [Reply("", b"Timeout", ok=False)]

    stage = Stage(answer)
    with pytest.raises(Unavailable) as caught:
        stage.play(steps.wait(stage.policy, "r", 60.0))
    assert (caught.value.code, len(stage.asked)) == ("TIMEOUT", 2)


def test_other_errors_are_raised_at_once() -> None:
    stage = Stage(script(bad("RUN_NOT_FOUND")))
    with pytest.raises(NotFound):
        stage.play(steps.ask(stage.policy, requests.run("r")))
    assert len(stage.asked) == 1


def test_pages_are_joined_and_a_listing_that_turns_in_circles_ends() -> None:
    pages = {"": ([1, 2], "2"), "2": ([3], None)}

    def answer(path: str, parameters: dict[str, str]) -> list[Reply]:
        items, after = pages[parameters.get("after", "")]
        return good({"runs": [run(x=item) for item in items], "next": after})

    stage = Stage(answer)
    items, _ = stage.play(steps.pages(stage.policy, lambda after: requests.runs(after=after)))
    assert [item.counts["x"] for item in items] == [1, 2, 3]
    pages["2"] = ([3], "2")
    with pytest.raises(InternalError, match="beyond"):
        stage.play(steps.pages(stage.policy, lambda after: requests.runs(after=after)))


def test_waiting_outlives_a_gateway_and_ends_at_its_limit() -> None:
    stage = Stage(script(good(run()), NOBODY, NOBODY, good(run("succeeded"))))
    assert stage.play(steps.wait(stage.policy, "r", None))[1].status == "succeeded"

    def slow(path: str, parameters: dict[str, str]) -> list[Reply]:
        stage.now += float(parameters["wait"])
        return good(run())

    stage = Stage(slow)
    with pytest.raises(Unavailable, match=r"still running after 50 s"):
        stage.play(steps.wait(stage.policy, "r", 50.0))
    assert stage.now == 50.0


def test_a_submission_waits_for_its_end_in_one_request_and_in_more_where_it_takes_long() -> None:
    stage = Stage(script(good(run("succeeded"))))
    assert stage.play(steps.submit_and_wait(stage.policy, {"name": "w"}, None, "r", None))[1].status == "succeeded"
    assert stage.asked == ["runs?wait=20"]

    stage = Stage(script(NOBODY, good(run()), good(run("failed"))))
    assert stage.play(steps.submit_and_wait(stage.policy, {"name": "w"}, None, "r", None))[1].status == "failed"
    assert stage.asked == ["runs?wait=20", "runs?wait=20", "runs/r?wait=20"]

    stage = Stage(script(good(run()), good(run("succeeded"))))
    large = {"name": "w", "x": "x" * WAITING_SUBMISSION}
    assert stage.play(steps.submit_and_wait(stage.policy, large, None, "r", None))[1].status == "succeeded"
    assert stage.asked == ["runs", "runs/r?wait=20"]

    def slow(path: str, parameters: dict[str, str]) -> list[Reply]:
        stage.now += float(parameters["wait"])
        return good(run())

    stage = Stage(slow)
    with pytest.raises(Unavailable, match="still running"):
        stage.play(steps.submit_and_wait(stage.policy, {"name": "w"}, None, "r", 50.0))
    assert stage.now == 50.0


# --- watching


class World:
    """A run of a few workers, as a gateway knows it."""

    def __init__(self, **workers: str) -> None:
        self.status = "running"
        self.workers = workers

    def answer(self, path: str, parameters: dict[str, str]) -> list[Reply]:
        if path.endswith("/workers"):
            return good(
                {"workers": [worker("r", name) | {"status": s} for name, s in self.workers.items()], "next": None}
            )
        counts: dict[str, int] = {}
        for status in self.workers.values():
            counts[status] = counts.get(status, 0) + 1
        return good(run(self.status, **counts))


def told(items: list[Any]) -> list[str]:
    return [f"{item.name} {item.status}" if isinstance(item, WorkerChange) else f"run {item.status}" for item in items]


def test_a_watch_begins_with_what_is_and_ends_with_the_final_run() -> None:
    world = World(a="succeeded", b="created")
    stage = Stage(world.answer)

    def later(path: str, parameters: dict[str, str]) -> list[Reply]:
        if len(stage.asked) == 3:
            world.status, world.workers["b"] = "succeeded", "succeeded"
        return world.answer(path, parameters)

    stage.answer = later
    stage.events = [event(name="b", status="running"), event(name="b", status="succeeded"), None]
    items, _ = stage.play(following.Watch(stage.policy, KEYS, "r").steps())
    assert told(items) == ["a succeeded", "run running", "b running", "b succeeded", "run succeeded"]


def test_lost_hints_are_made_up_for() -> None:
    world = World(a="created", b="created")
    stage = Stage(world.answer)
    operation = following.Watch(stage.policy, KEYS, "r").steps()

    def later(path: str, parameters: dict[str, str]) -> list[Reply]:
        if len(stage.asked) == 2:
            world.status, world.workers["a"], world.workers["b"] = "failed", "failed", "skipped"
        return world.answer(path, parameters)

    stage.answer = later
    items, _ = stage.play(operation)
    assert told(items) == ["run running", "a failed", "b skipped", "run failed"]


def test_a_gap_is_filled_at_once_and_unreadable_hints_do_no_harm() -> None:
    world = World(a="created")
    stage = Stage(world.answer)
    stage.events = [
        Happening(Sample(KEYS.event_worker("r", "a"), b"no json")),
        Happening(Sample(KEYS.event_run("r"), b"[]")),
        Happening(Sample(KEYS.event_run("r"), json.dumps(run("created", created=1)).encode()), gap=True),
    ]

    def later(path: str, parameters: dict[str, str]) -> list[Reply]:
        if len(stage.asked) == 2:
            world.status, world.workers["a"] = "succeeded", "succeeded"
        return world.answer(path, parameters)

    stage.answer = later
    items, _ = stage.play(following.Watch(stage.policy, KEYS, "r").steps())
    assert told(items) == ["run running", "run created", "a succeeded", "run succeeded"]
    assert stage.now == 0.0


def test_state_is_read_now_and_then_although_events_keep_coming() -> None:
    world = World(a="running", b="created")
    stage = Stage(world.answer)

    class Endless(list[Happening | None]):
        def __bool__(self) -> bool:
            return True

        def pop(self, index: Any = 0) -> Happening | None:
            stage.now += 0.5
            if stage.now > 3:
                world.status, world.workers = "cancelled", {"a": "cancelled", "b": "cancelled"}
            return event(name="a", status="running")

    stage.events = Endless()
    items, _ = stage.play(following.Watch(stage.policy, KEYS, "r").steps())
    assert told(items)[-3:] == ["a cancelled", "b cancelled", "run cancelled"]


# --- logs


class Tasks:
    """One worker's attempts: what each wrote, and whether it has ended. Their numbers are ``step`` apart."""

    def __init__(self, status: str, *outputs: bytes | None, running: bool = False, step: int = 1) -> None:
        self.status, self.outputs, self.running, self.step = status, list(outputs), running, step

    def answer(self, path: str, parameters: dict[str, str]) -> list[Reply]:
        newest = len(self.outputs)
        if "/logs/" not in path:
            attempts = [
                {
                    "attempt": self.number(n),
                    "node": "n",
                    "status": "x",
                    "assigned_at": T0,
                    "completed_at": None if self.going(n) else T0,
                }
                for n in range(1, newest + 1)
            ]
            return good(worker("r", "w") | {"status": self.status, "attempts": attempts})
        number = int(parameters.get("attempt", self.number(newest)))
        place = next((n for n in range(1, newest + 1) if self.number(n) == number), None)
        content = self.outputs[place - 1] if place is not None else None
        if place is None or content is None:
            return bad("LOG_NOT_FOUND")
        offset = int(parameters.get("offset", max(0, len(content) - int(parameters.get("tail", 1 << 30)))))
        data = content[offset : offset + 4]
        size, end = len(content), offset + len(data)
        return good(data, attempt=number, node="n", offset=offset, next=end, size=size, running=self.going(place))

    def number(self, place: int) -> int:
        return 1 + (place - 1) * self.step

    def going(self, number: int) -> bool:
        return self.running and number == len(self.outputs)


def read(stage: Stage, **options: Any) -> bytes:
    items, _ = stage.play(following.Log(stage.policy, "r", "w", **options).steps())
    return b"".join(chunk.data for chunk in items)


def test_a_log_is_read_whole_and_the_newest_attempt_is_meant() -> None:
    stage = Stage(Tasks("succeeded", b"first", b"second one").answer)
    assert read(stage) == b"second one"
    assert read(stage, attempt=1) == b"first"
    assert read(stage, tail=3) == b"one"


def test_who_reads_on_says_where_the_log_is() -> None:
    tasks, given = Tasks("succeeded", b"12345678"), list[dict[str, str]]()

    def answer(path: str, parameters: dict[str, str]) -> list[Reply]:
        given.append(parameters)
        return tasks.answer(path, parameters)

    assert read(Stage(answer)) == b"12345678"
    assert given == [{}, {"offset": "4", "attempt": "1", "node": "n"}]


def test_without_following_a_growing_log_ends_where_it_did_at_first() -> None:
    tasks = Tasks("running", b"12345678", running=True)

    def growing(path: str, parameters: dict[str, str]) -> list[Reply]:
        replies = tasks.answer(path, parameters)
        tasks.outputs[0] = (tasks.outputs[0] or b"") + b"more"
        return replies

    assert read(Stage(growing)) == b"12345678"


def test_following_goes_on_with_the_next_attempt() -> None:
    tasks = Tasks("running", b"one ", running=True)
    stage = Stage(tasks.answer)

    def later(path: str, parameters: dict[str, str]) -> list[Reply]:
        replies = tasks.answer(path, parameters)
        if len(stage.asked) == 3:
            tasks.outputs[0], tasks.running, tasks.status = b"one end ", False, "ready"
        if len(stage.asked) == 8:
            tasks.outputs.append(b"two")
            tasks.status = "succeeded"
        return replies

    stage.answer = later
    assert read(stage, follow=True) == b"one end two"


def test_following_passes_over_the_gap_before_the_attempts_of_another_owner() -> None:
    tasks = Tasks("succeeded", b"one ", b"two", step=100_000)
    first = Tasks("running", b"one ")

    def answer(path: str, parameters: dict[str, str]) -> list[Reply]:
        return (tasks if any("/logs/" in one for one in stage.asked) else first).answer(path, parameters)

    stage = Stage(answer)
    assert read(stage, follow=True) == b"one two"
    assert len(stage.asked) < 10


def test_following_waits_for_an_attempt_that_its_node_does_not_know_yet() -> None:
    """The gateway says attempt 0 of a log that is still to come, whichever attempt was asked for."""
    tasks = Tasks("succeeded", b"here")
    unknown = [good(b"", attempt=0, node=None, offset=0, next=0, size=0, running=True)] * 2

    def answer(path: str, parameters: dict[str, str]) -> list[Reply]:
        if "/logs/" in path:
            assert parameters["attempt"] == "1"
            if unknown:
                return unknown.pop()
        return tasks.answer(path, parameters)

    assert read(Stage(answer), follow=True) == b"here"


def test_following_waits_for_a_worker_that_has_not_started() -> None:
    tasks = Tasks("created")
    stage = Stage(tasks.answer)

    def later(path: str, parameters: dict[str, str]) -> list[Reply]:
        if len(stage.asked) == 3:
            tasks.outputs.append(b"here")
            tasks.status = "succeeded"
        return tasks.answer(path, parameters)

    stage.answer = later
    assert read(stage, follow=True) == b"here"


def test_following_passes_by_what_never_wrote() -> None:
    assert read(Stage(Tasks("skipped").answer), follow=True) == b""
    assert read(Stage(Tasks("failed", None).answer), follow=True) == b""


def test_a_log_that_is_not_there_is_an_error_to_those_who_do_not_follow() -> None:
    with pytest.raises(NotFound):
        read(Stage(Tasks("skipped").answer))
    with pytest.raises(NotFound):
        read(Stage(Tasks("failed", None).answer), follow=True, attempt=1)


def test_following_leaves_a_node_that_is_gone_for_the_next_attempt() -> None:
    tasks = Tasks("succeeded", b"lost", b"found")

    def answer(path: str, parameters: dict[str, str]) -> list[Reply]:
        if "/logs/" in path and parameters["attempt"] == "1":
            return bad("NODE_UNREACHABLE")
        if "/logs/" not in path and not any("/logs/" in one for one in stage.asked):
            return Tasks("running", b"lost", running=True).answer(path, parameters)
        return tasks.answer(path, parameters)

    stage = Stage(answer)
    assert read(stage, follow=True) == b"found"


def test_newer_state_is_told_once() -> None:
    world = World(a="created")
    stage = Stage(world.answer)

    def later(path: str, parameters: dict[str, str]) -> list[Reply]:
        if len(stage.asked) == 4:
            world.status = "cancelled"
        return world.answer(path, parameters)

    stage.answer = later
    items, _ = stage.play(following.Watch(stage.policy, KEYS, "r", workers=False).steps())
    assert [item.status for item in items if isinstance(item, RunView)] == ["running", "cancelled"]
