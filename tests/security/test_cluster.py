"""The life of a secured cluster of real processes: machines and people come, certificates are renewed, members are struck off."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zenoh

from tests.network.processes import Agent, Network, network, wait_until
from tests.security.members import LOOPBACK, TIMEOUT, Members, all_roles, ear, free_port
from wattle.bus.config import ZenohOptions, open_session
from wattle.client.blocking import Client
from wattle.errors import SettingsError, Unavailable
from wattle.security.authority import Authority, Wanted

NODE = ("coordinator", "gateway", "runtime")
PATIENCE = 60.0


def until(holds: Callable[[], Any], what: str) -> Any:
    """What comes of ``holds`` once it is true."""
    found: list[Any] = []

    def there() -> Any:
        try:
            found[:] = [holds()]
        except Unavailable:
            return False
        return found[0]

    wait_until(there, what, PATIENCE)
    return found[0]


def join(net: Network, members: Members, name: str) -> Agent:
    """``wattle join`` on a machine of its own: a data folder."""
    return net.start("join", name, str(members.bundle(name)))


def nodes(client: Client) -> set[str]:
    return {node.name for node in client.nodes() if node.status == "ready"}


def test_machines_and_people_come_and_go(tmp_path: Path) -> None:
    members = Members(tmp_path / "ca")
    members.issue(Wanted("n1", NODE, (LOOPBACK,), free_port()))
    with network() as net:
        first = join(net, members, "n1")
        members.issue(Wanted("alice", ("client",)), Wanted("eve", ("client",)))
        with Client(bundle=members.bundle("alice"), data=tmp_path) as alice:
            # Alice came after n1 was started, whose session was opened anew for her.
            assert until(lambda: nodes(alice), "n1 is not seen") == {"n1"}
            assert "the session is opened anew" in first.log

            go, begun = tmp_path / "go", tmp_path / "begun"
            script = f"touch {begun}; until [ -e {go} ]; do sleep 0.05; done; echo went"
            run = alice.submit({"name": "w", "workers": [{"name": "a", "script": script}]})
            until(begun.exists, "the task has not started")

            # A machine comes while a task runs.
            members.issue(Wanted("n2", NODE, (LOOPBACK,), free_port()))
            join(net, members, "n2")
            assert until(lambda: len(nodes(alice)) == 2, "n2 is not seen")

            # The first one gets another certificate.
            with Authority.open(members.folder) as authority:
                authority.renew(["n1"])
            installed = first.data / "member.bundle"
            aside = first.data / "new.bundle"
            shutil.copy(members.bundle("n1"), aside)
            aside.replace(installed)
            until(lambda: "another bundle changed" in first.log, "the new bundle was not noticed")

            go.touch()
            assert alice.wait(run.id, PATIENCE).status == "succeeded"
            assert len(alice.worker(run.id, "a").attempts) == 1, "it ran through all of it"
            assert until(lambda: len(nodes(alice)) == 2, "not both are there after all")

        with Client(bundle=members.bundle("eve"), data=tmp_path) as eve:
            assert nodes(eve)
            bundle = tmp_path / "eve.bundle"
            shutil.copy(members.bundle("eve"), bundle)
            with Authority.open(members.folder) as authority:
                authority.revoke(["eve"])
            net.wattle("cluster", "push", "--cluster", str(members.folder))
        with Client(bundle=members.bundle("alice"), data=tmp_path) as alice:  # who waits until somebody listens again
            until(lambda: len(nodes(alice)) == 2, "alice may go on")
        with pytest.raises(Unavailable), Client(bundle=bundle, data=tmp_path, patience=0.0) as eve:
            eve.nodes()


def test_behind_a_router(tmp_path: Path) -> None:
    """Members that nobody can connect to are clients of a router, which holds them to the rules."""
    members = Members(tmp_path / "ca")
    members.issue(
        Wanted("r1", ("router",), (LOOPBACK,), free_port()),
        Wanted("n1", NODE),
        Wanted("n2", ("runtime",)),
        Wanted("alice", ("client",)),
    )
    with network() as net:
        for name in ("r1", "n1", "n2"):
            join(net, members, name)
        with Client(bundle=members.bundle("alice"), data=tmp_path) as alice:
            until(lambda: len(nodes(alice)) == 2, "not both nodes are seen")
            workers = [
                {"name": "a", "script": "echo hi >$WATTLE_OUTPUT_O", "outputs": {"o": "o"}, "place": {"node": "n1"}},
                {"name": "b", "script": "cat $WATTLE_INPUT_I", "inputs": {"i": "a/o"}, "place": {"node": "n2"}},
            ]
            run = alice.submit({"name": "w", "workers": workers})
            assert alice.wait(run.id, PATIENCE).status == "succeeded"
            assert b"".join(chunk.data for chunk in alice.log_chunks(run.id, "b")) == b"hi\n"
        intruder = members.member("n2").zenoh_values()
        endpoint = members.endpoints("r1")[0]
        session = open_session(ZenohOptions(mode="client", connect=(endpoint,), secured=intruder))
        try:
            key = "wattle/default/cmd/n1/assign"
            assert list(session.get(key, payload="{}", target=zenoh.QueryTarget.ALL, timeout=TIMEOUT)) == []
            key = "wattle/default/state/runtime/n1"
            assert [reply.ok is not None for reply in session.get(key, timeout=TIMEOUT)] == [True]
        finally:
            session.close()


def test_a_link_ends_with_its_certificate(tmp_path: Path) -> None:
    members = all_roles(tmp_path / "ca")
    members.issue(Wanted("brief", ("client",), seconds=3.0))
    with ear(members.open("n1")) as listener:
        endpoint = members.endpoints("n1")[0]
        session = members.open("brief", connect=endpoint)
        try:
            assert session.info.links(), "it was let in"
            until(lambda: not listener.session.info.links(), "the link is there still")
            with pytest.raises(Unavailable):
                members.open("brief", connect=endpoint)
            with pytest.raises(SettingsError, match="wattle cluster renew brief"):
                Client(bundle=members.bundle("brief"), data=tmp_path)
        finally:
            session.close()
        members.open("alice", connect=endpoint).close()


def test_insecure_is_written_to_the_log_and_shown_by_doctor() -> None:
    with network() as net:
        endpoint = f"tcp/{LOOPBACK}:{free_port()}"
        router = net.start("router", "r", "--insecure", "--listen", endpoint)
        assert endpoint in router.endpoints
        assert "insecure: whoever reaches this can run commands here" in router.log
        net.start("gateway", "g", "--insecure", "--mode", "client", connect=endpoint)
        told = net.wattle("doctor", "--connect", endpoint, check=False).stdout
        assert "router r takes orders from whoever reaches it" in told
