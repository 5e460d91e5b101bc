"""Tokens of a cluster: its gateways learn from their bundles how to check them; and what a cluster of real processes makes of each."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.network.processes import Agent, Network, network, wait_until
from tests.security.members import LOOPBACK, free_port
from tests.security.test_audit import tampered
from wattle.cli.app import app
from wattle.client.blocking import Client
from wattle.errors import Denied, Unavailable
from wattle.security.authority import Authority, Wanted
from wattle.security.joining import settings_of_member
from wattle.security.roles import Role
from wattle.security.tokens import PRIVATE_NAME, Checker, issue
from wattle.settings import GatewaySettings
from wattle.store.audit import NAME

PATIENCE = 60.0


def token_of(folder: Path, role: Role = Role.ADMIN, **more: Any) -> str:
    """A token of a cluster's, good in the default namespace."""
    with Authority.open(folder) as authority:
        given: dict[str, Any] = {"subject": "ann", "namespaces": ["default"], "ttl": 600.0, "cluster": authority.id}
        return issue(folder / PRIVATE_NAME, role=role, **given | more)


# --- from the folder to the gateway's settings, with nothing copied by hand -------------------------------------------------


def settings_of(folder: Path, **flags: Any) -> GatewaySettings:
    """The settings of the gateway ``g1``, from its bundle."""
    return settings_of_member(GatewaySettings, folder / "bundles" / "g1.bundle", folder / "data", flags=flags)


def who(folder: Path, token: str) -> str:
    """Whose token it is to the gateway; raises Denied."""
    settings, now = settings_of(folder), time.time()
    assert settings.token_public_key is not None
    checker = Checker(settings.token_public_key, settings.namespace, settings.cluster_id)
    identity = checker.read(token, now)
    checker.check(identity, now)
    return identity.subject


def test_bundles_say_how_tokens_are_checked(tmp_path: Path) -> None:
    folder, other = tmp_path / "ca", tmp_path / "other"

    def wattle(*args: str) -> str:
        result = CliRunner().invoke(app, [*args, "--cluster", str(folder)])
        assert result.exit_code == 0, result.output
        return result.stdout.strip()

    for made in (folder, other):
        assert (
            CliRunner().invoke(app, ["cluster", "init", str(made), "--tokens", "--node", "g1=10.0.0.1"]).exit_code == 0
        )
    assert settings_of(folder).audited
    first = wattle("token", "issue", "--role", "operator", "--name", "ann")
    assert [who(folder, first), who(folder, wattle("token", "issue", "--role", "viewer"))] == ["ann", "viewer"]
    for wrong in (token_of(other), token_of(folder, cluster="lab")):
        with pytest.raises(Denied, match="cluster"):
            who(folder, wrong)
    assert who(other, token_of(other)) == "ann"

    wattle("cluster", "tokens", "new-key")
    wattle("cluster", "renew", "g1")  # which puts the newest roster in the bundle; those that run are told by a push
    second = wattle("token", "issue", "--role", "operator", "--name", "bob")
    assert [who(folder, first), who(folder, second)] == ["ann", "bob"]
    wattle("cluster", "tokens", "forget-old-keys")
    wattle("cluster", "renew", "g1")
    with pytest.raises(Denied, match="not signed by a key of this cluster"):
        who(folder, first)
    assert who(folder, second) == "bob"

    wattle("cluster", "tokens", "off")
    wattle("cluster", "renew", "g1")
    assert (settings_of(folder).token_public_key, settings_of(folder).audited) == (None, False)
    shown = CliRunner().invoke(app, ["token", "issue", "--role", "viewer", "--cluster", str(folder)])
    assert "ask for no tokens" in shown.stderr


def test_a_key_in_a_gateways_own_settings_takes_the_place_of_the_clusters(tmp_path: Path) -> None:
    Authority.create(tmp_path / "ca", tokens=True)
    with Authority.open(tmp_path / "ca") as authority:
        authority.issue([Wanted("g1", ("gateway",))])
    own = tmp_path / "own.pub"
    assert settings_of(tmp_path / "ca", token_public_key=own).token_public_key == own


# --- over real processes ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Secured:
    """A node of a cluster with tokens, and where a client's bundle of it is."""

    net: Network
    folder: Path
    node: Agent
    bundle: Path

    def token(self, role: Role = Role.ADMIN, **more: Any) -> str:
        return token_of(self.folder, role, **more)

    def wattle(self, *args: str) -> str:
        """Run a command about the cluster's folder."""
        return self.net.wattle(*args, "--cluster", str(self.folder)).stdout.strip()

    def audit(self) -> list[dict[str, Any]]:
        shown = self.net.wattle("audit", "show", "--json", "--data", str(self.node.data)).stdout
        records: list[dict[str, Any]] = json.loads(shown)
        return records


@pytest.fixture(scope="module")
def secured() -> Iterator[Secured]:
    with network() as net:
        folder = net.folder / "ca"
        net.wattle("cluster", "init", str(folder), "--tokens", "--node", f"n1={LOOPBACK}:{free_port()}")
        net.wattle("cluster", "issue", "alice", "--role", "client", "--cluster", str(folder))
        bundles = folder / "bundles"
        yield Secured(net, folder, net.start("join", "n1", str(bundles / "n1.bundle")), bundles / "alice.bundle")


Enter = Callable[[str], Client]


@pytest.fixture
def client_with(secured: Secured, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Enter:
    """A client that has this token, or none; not yet entered."""

    def make(token: str) -> Client:
        monkeypatch.setenv("WATTLE_TOKEN", token)
        return Client(bundle=secured.bundle, data=tmp_path, patience=PATIENCE)

    return make


def waiting(client: Client) -> str:
    """A run that waits until it is cancelled."""
    return client.submit({"name": "w", "workers": [{"name": "a", "command": "sleep 600"}]}).id


def refusal(client: Client, run: str) -> str:
    with client, pytest.raises(Denied) as caught:
        client.cancel(run)
    return caught.value.code


def test_a_viewer_looks_on_and_an_operator_cancels(secured: Secured, tmp_path: Path) -> None:
    """As people do it: with commands, and token files that ``wattle token issue`` made."""

    def as_(name: str, *args: str) -> Any:
        file = tmp_path / name
        if not file.exists():
            secured.wattle("token", "issue", "--role", name, "--name", f"{name}-1", "--out", str(file))
        return secured.net.wattle("--token-file", str(file), *args, "--bundle", str(secured.bundle), check=False)

    document = tmp_path / "w.json"
    document.write_text('{"name": "w", "workers": [{"name": "a", "command": "sleep 600"}]}')
    refused = as_("viewer", "submit", str(document))
    assert (refused.returncode, "'viewer-1' is viewer here, which may not run" in refused.stderr) == (2, True), refused
    submitted = as_("operator", "submit", str(document))
    assert submitted.returncode == 0, submitted
    run = submitted.stdout.strip()
    looked = as_("viewer", "status", run)
    assert (looked.returncode, run in looked.stdout) == (0, True), looked
    refused = as_("viewer", "cancel", run)
    assert (refused.returncode, "'viewer-1' is viewer here, which may not run" in refused.stderr) == (2, True), refused
    assert as_("operator", "cancel", run).returncode == 0
    drained = as_("operator", "drain", "n1")
    assert (drained.returncode, "is operator here, which may not operate" in drained.stderr) == (2, True), drained
    told = [(r["who"], r["path"], r["code"] or r["outcome"]["code"]) for r in secured.audit() if run in str(r)]
    assert told == [
        ("operator-1", "runs", "OK"),
        ("viewer-1", f"runs/{run}/cancel", "FORBIDDEN"),
        ("operator-1", f"runs/{run}/cancel", "OK"),
    ]


def test_every_other_token_is_refused_and_recorded(secured: Secured, client_with: Enter, tmp_path: Path) -> None:
    Authority.create(tmp_path / "other", tokens=True)
    head, body, signature = secured.token().split(".")
    wrong = {
        "": ("unknown", "TOKEN_MISSING"),
        secured.token(now=time.time() - 3600): ("ann", "TOKEN_EXPIRED"),
        f"{head}.{body[:-2]}AA.{signature}": ("unknown", "TOKEN_INVALID"),
        token_of(tmp_path / "other"): ("unknown", "TOKEN_INVALID"),
        secured.token(cluster="another"): ("unknown", "TOKEN_INVALID"),
        secured.token(namespaces=["other"]): ("ann", "FORBIDDEN"),
        secured.token(Role.VIEWER): ("ann", "FORBIDDEN"),
    }
    with client_with(secured.token(Role.OPERATOR, subject="bob")) as bob:
        run = waiting(bob)
        began = time.time()
        for token, (_, code) in wrong.items():
            assert refusal(client_with(token), run) == code
        assert bob.run(run).status == "running"
        bob.cancel(run)
        assert bob.wait(run, PATIENCE).status == "cancelled"
    records = [r for r in secured.audit() if r.get("path") == f"runs/{run}/cancel"]
    said = [(r["who"], r["allowed"], r["code"]) for r in records]
    assert said == [*((name, False, code) for name, code in wrong.values()), ("bob", True, None)]
    assert all(began - 1 <= _unix(r["at"]) <= time.time() for r in records)
    assert {r["certificate"] for r in records} == {"client:alice@default"}
    assert len({r["session"] for r in records}) == len(records), "each was a client of its own"


def _unix(text: str) -> float:
    from wattle.protocol.records import seconds

    return seconds(text) or 0.0


def test_the_audit_of_a_running_gateway_is_sound_and_a_changed_row_is_found(
    secured: Secured, client_with: Enter, tmp_path: Path
) -> None:
    with client_with(secured.token(Role.OPERATOR)) as client:
        run = waiting(client)
        client.cancel(run)
    sound = secured.net.wattle("audit", "verify", "--json", "--data", str(secured.node.data)).stdout
    assert json.loads(sound)["problems"] == []
    number = next(r["number"] for r in secured.audit() if r.get("path") == f"runs/{run}/cancel")
    with closing(sqlite3.connect(secured.node.data / NAME)) as live, closing(sqlite3.connect(tmp_path / NAME)) as copy:
        live.backup(copy)
    tampered(tmp_path, f"UPDATE audit SET entry = replace(entry, 'ann', 'eve') WHERE number = {number}")
    found = secured.net.wattle("audit", "verify", "--data", str(tmp_path), check=False)
    assert (found.returncode, f"row {number}: it, or the row before it, was changed" in found.stdout) == (1, True)


def test_a_running_gateway_learns_of_other_keys(secured: Secured, client_with: Enter) -> None:
    old = secured.token(subject="old")
    secured.wattle("cluster", "tokens", "new-key")
    secured.wattle("cluster", "push")
    new = secured.token(subject="new")

    def taken(token: str) -> bool:
        try:
            with client_with(token) as client:
                return bool(client.health())
        except (Denied, Unavailable):
            return False

    wait_until(lambda: taken(new), "the new key is not taken up", PATIENCE)
    assert taken(old), "while one key takes over from another both count"
    secured.wattle("cluster", "tokens", "forget-old-keys")
    secured.wattle("cluster", "push")
    wait_until(lambda: not taken(old), "the old key counts still", PATIENCE)
    wait_until(lambda: taken(new), "the new key counts no more", PATIENCE)
