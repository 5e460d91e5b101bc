"""The blocking client against a fake gateway over real sockets."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.client.fake_gateway import FakeGateway, node, workflow
from wattle.bus.base import Sample
from wattle.client.answers import WorkerChange
from wattle.client.blocking import Client, Mailbox
from wattle.errors import Conflict, InvalidDocument, InvalidRequest, NotFound, Unavailable


@pytest.fixture
def client(gateway: FakeGateway) -> Iterator[Client]:
    with Client(gateway.endpoint) as client:
        yield client


def test_submit_is_repeated_under_one_id_after_a_lost_answer(gateway: FakeGateway) -> None:
    unanswered = iter([False])
    gateway.before = lambda path: next(unanswered, True)
    with Client(gateway.endpoint, timeout=0.3) as client:
        view = client.submit({"name": "flow", "workers": []}, {"p": 1})
    bodies = [json.loads(payload or b"") for _, _, payload in gateway.asked]
    assert [body["run"] for body in bodies] == [view.id, view.id]
    assert view.id.startswith("flow-")
    assert bodies[0]["params"] == {"p": 1}


def test_wait_is_one_long_poll(gateway: FakeGateway, client: Client) -> None:
    gateway.add_run("r", "a")

    def finish() -> None:
        gateway.wait_asked("runs/r")
        gateway.finish("r")

    threading.Thread(target=finish).start()
    assert client.wait("r").status == "succeeded"
    assert len(gateway.asked) == 1


def test_wait_outlives_the_gateway(gateway: FakeGateway) -> None:
    gateway.add_run("r", "a")
    folder = Path(gateway.endpoint.partition("/")[2]).parent

    def replace() -> None:
        gateway.wait_asked("runs/r")
        gateway.__exit__(None, None, None)
        other = FakeGateway(folder)
        other.add_run("r", "a", status="failed")
        successor.append(other.__enter__())

    successor: list[FakeGateway] = []
    with Client(gateway.endpoint) as client:
        thread = threading.Thread(target=replace)
        thread.start()
        assert client.wait("r").status == "failed"
        thread.join()
    successor[0].__exit__(None, None, None)


def test_watch_yields_every_change_and_then_the_result(gateway: FakeGateway, client: Client) -> None:
    gateway.add_run("r", "a", "b")
    told = []
    for update in client.watch("r"):
        if isinstance(update, WorkerChange):
            told.append((update.name, update.status))
            continue
        if not told:
            gateway.set_worker("r", "a", "running")
            gateway.set_worker("r", "a", "failed", error_message="exit status 3", tell=False)  # a lost hint
            gateway.set_worker("r", "b", "skipped")
            gateway.set_run("r", "failed")
    assert sorted(told) == [("a", "failed"), ("a", "running"), ("b", "skipped")]
    assert not isinstance(update, WorkerChange)
    assert (update.status, update.counts) == ("failed", {"failed": 1, "skipped": 1})


def test_logs_are_followed_through_a_retry(gateway: FakeGateway, client: Client) -> None:
    gateway.add_run("r", "a")
    gateway.set_worker("r", "a", "running")
    gateway.append_log("r", "a", b"one\n")
    read = b""
    for data in client.logs("r", "a", follow=True):
        read += data
        if read == b"one\n":
            gateway.append_log("r", "a", b"two\n")
            gateway.end_attempt("r", "a")
            gateway.set_worker("r", "a", "running")
            gateway.append_log("r", "a", b"three\n", attempt=2)
            gateway.set_worker("r", "a", "succeeded")
    assert read == b"one\ntwo\nthree\n"


def test_listings_fetch_page_after_page(gateway: FakeGateway, client: Client) -> None:
    gateway.page_limit = 2
    for number in range(5):
        gateway.add_run(f"r{number}", "a")
    assert [run.id for run in client.runs()] == ["r4", "r3", "r2", "r1", "r0"]
    gateway.add_run("many", *(f"w{number}" for number in range(3)))
    assert [worker.name for worker in client.workers("many")] == ["w0", "w1", "w2"]


def test_the_smaller_requests(gateway: FakeGateway, client: Client) -> None:
    gateway.add_run("r", "a")
    gateway.nodes["n"] = node("n")
    gateway.workflows["flow"] = workflow("flow")
    assert client.worker("r", "a").status == "created"
    assert client.cancel("r").status == "cancelled"
    assert client.retry("r").status == "running"
    assert client.drain("n").status == "draining"
    assert client.resume("n").status == "ready"
    assert [one.name for one in client.nodes()] == ["n"]
    assert client.node("n").slots == 2
    assert [one.name for one in client.workflows()] == ["flow"]
    assert client.workflow("flow").workers == 1
    assert client.start("flow", {"a": 1}).params == {"a": 1}
    assert client.health().status == "ok"
    assert json.loads(client.get("runs/r?wait=0")[0].payload)["id"] == "r"
    assert client.get("wattle/default/nobody/here") == []


def test_errors_arrive_as_their_classes(gateway: FakeGateway, client: Client) -> None:
    with pytest.raises(NotFound):
        client.run("missing")
    gateway.add_run("r", "a")
    with pytest.raises(Conflict):
        client.retry("r")


def test_workflows_are_put_and_deleted_and_refusals_are_told(gateway: FakeGateway, client: Client) -> None:
    assert client.put_workflow("flow", {"name": "flow"}).name == "flow"
    client.delete_workflow("flow")
    assert gateway.workflows == {}
    with pytest.raises(InvalidDocument):
        client.put_workflow("bad", b"x")
    with pytest.raises(InvalidDocument, match="no good"):
        client.put("runs/x", b"{}")
    with pytest.raises(NotFound):
        client.delete_workflow("flow")


def test_nobody_there(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unavailable) as caught, Client(gateway.endpoint + "x"):
        pass
    assert caught.value.code == "NO_NETWORK"
    # somebody is there, but no gateway
    with Client(gateway.endpoint, namespace="other") as client:
        client._policy.first_contact = 0.0
        with pytest.raises(Unavailable, match="wattle up") as caught:
            client.run("r")
    assert caught.value.code == "NO_GATEWAY"
    assert "in namespace 'other'" in caught.value.message


def test_the_endpoint_comes_from_the_environment(gateway: FakeGateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTLE_CONNECT", gateway.endpoint)
    with Client() as client:
        assert client.health().status == "ok"


def test_a_closed_client_says_so(gateway: FakeGateway) -> None:
    client = Client(gateway.endpoint)
    with pytest.raises(RuntimeError, match="with"):
        client.health()
    with client:
        client.close()
        client.close()


def test_events_beyond_the_backlog_are_marked_as_a_gap() -> None:
    mailbox = Mailbox(size=1)
    first, second, third = (Sample(key, b"") for key in "abc")
    mailbox.put(first)
    mailbox.put(second)
    happening = mailbox.next(0)
    assert happening is not None
    assert (happening.sample, happening.gap) == (first, True)
    mailbox.put(third)
    happening = mailbox.next(0)
    assert happening is not None
    assert not happening.gap
    assert mailbox.next(0) is None


def test_importing_it_brings_no_event_loop_and_no_settings_library() -> None:
    code = "import sys, wattle; wattle.Client; print([m for m in ('trio', 'structlog', 'pydantic', 'rich', 'typer') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_importing_wattle_alone_brings_neither_client() -> None:
    code = "import sys, wattle; print([m for m in sys.modules if m.startswith('wattle.')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_names_of_documents_are_no_paths(client: Client, tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="cannot read"):
        client.submit(tmp_path / "nothing.yaml")
