"""The audit: what is recorded, before what; and tampering, each kind of which is found."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from tests.bus.networks import PATIENCE, Inbox
from tests.coordinator.world import KEYS, World, document
from tests.security.conftest import Cluster, api_of
from wattle.bus.base import Query
from wattle.cli.app import app
from wattle.errors import Denied, NotFound, WattleError
from wattle.gateway.agent import GatewayAgent
from wattle.peer.asking import refuse
from wattle.security.roles import Role
from wattle.settings import GatewaySettings
from wattle.store import backup, checking
from wattle.store.audit import NAME, START, TRIMMED, AuditStore, canonical, chained, read, verify


def recorded(folder: Path, *paths: str) -> dict[int, str]:
    """An audit of these requests; gives its heads as they were after each."""
    store, heads = AuditStore(folder / NAME), {}
    for path in paths:
        store.append({"kind": "request", "path": path})
        heads[store.number] = store.hash
    store.close()
    return heads


def tampered(folder: Path, *statements: str) -> None:
    """Have somebody at the file who knows what he does."""
    with sqlite3.connect(folder / NAME) as connection:
        for trigger in ("audit_unchanged", "audit_kept"):
            connection.execute(f"DROP TRIGGER {trigger}")
        for statement in statements:
            connection.execute(statement)
    connection.close()


# --- the chain -------------------------------------------------------------------------------------------------------------


def test_the_chain_is_what_it_is_said_to_be(tmp_path: Path) -> None:
    heads = recorded(tmp_path, "a", "b")
    first = hashlib.sha256((START + '{"kind":"request","number":1,"path":"a"}').encode()).hexdigest()
    second = hashlib.sha256((first + '{"kind":"request","number":2,"path":"b"}').encode()).hexdigest()
    assert heads == {1: first, 2: second}
    verdict = verify(tmp_path / NAME, heads)
    assert (verdict.rows, verdict.number, verdict.hash, verdict.problems) == (2, 2, second, [])
    recorded(tmp_path, "c")  # another process goes on with it
    assert [r["path"] for r in read(tmp_path / NAME, 10)] == ["a", "b", "c"]
    assert (verify(tmp_path / NAME, heads).number, verify(tmp_path / NAME, heads).problems) == (3, [])


def rewritten(folder: Path, number: int) -> None:
    """Change a row and compute everything after it anew, the noted head too: nothing in the file itself shows that."""
    with sqlite3.connect(folder / NAME) as connection:
        rows = connection.execute("SELECT number, entry, hash FROM audit ORDER BY number").fetchall()
    connection.close()
    before = START if number == 1 else rows[number - 2][2]
    updates = []
    for at, entry, _ in rows[number - 1 :]:
        record = json.loads(entry)
        if at == number:
            record["path"] = "innocent"
        before = chained(before, canonical(record))
        updates.append(f"UPDATE audit SET entry = '{canonical(record)}', hash = '{before}' WHERE number = {at}")
    tampered(folder, *updates, f"UPDATE meta SET value = '{len(rows)}:{before}' WHERE key = 'head'")


@pytest.mark.parametrize(
    ("statements", "problem"),
    [
        (
            ["UPDATE audit SET entry = replace(entry, 'c', 'x') WHERE number = 3"],
            "row 3: it, or the row before it, was changed",
        ),
        (["UPDATE audit SET hash = 'x' WHERE number = 3"], "row 3: it, or the row before it, was changed"),
        (["DELETE FROM audit WHERE number = 3"], "rows 3 to 3 are gone"),
        (["DELETE FROM audit WHERE number <= 2"], "rows 1 to 2 are gone"),
        (["DELETE FROM audit WHERE number = 5"], "the end was cut off or changed: the row written last was 5"),
        (["DELETE FROM audit"], "the end was cut off or changed: the row written last was 5"),
        (
            [f"UPDATE audit SET number = {a} WHERE number = {b}" for a, b in ((99, 2), (2, 3), (3, 99))],
            "row 2: it was row 3",
        ),
        (
            ["DELETE FROM audit WHERE number = 3", "UPDATE audit SET number = number - 1 WHERE number > 3"],
            "row 3: it was row 4",
        ),
        (["INSERT INTO audit VALUES (6, '{\"number\":6}', 'x')"], "row 6: it, or the row before it, was changed"),
        (["UPDATE audit SET entry = 'no json' WHERE number = 5"], "row 5: it holds no record"),
        (["UPDATE audit SET entry = '[5]' WHERE number = 5"], "row 5: it holds no record"),
        (["UPDATE audit SET entry = x'0061' WHERE number = 5"], "row 5: it, or the row before it, was changed"),
        (["UPDATE audit SET entry = CAST(x'ff' AS TEXT) WHERE number = 5"], "row 5: it holds no record"),
        (["UPDATE audit SET hash = x'0061' WHERE number = 3"], "row 4: it, or the row before it, was changed"),
        (
            ['UPDATE audit SET entry = \'{"kind":"trimmed","number":3}\' WHERE number = 3'],
            "row 3: it does not say which rows were removed",
        ),
        (['UPDATE audit SET entry = \'x"kind":"trimmed"\' WHERE number = 3'], "row 3: it holds no record"),
        (
            ['UPDATE audit SET entry = \'{"kind":"broken","number":3}\' WHERE number = 3'],
            "row 3: the rows before it did not end with the one written last, None",
        ),
    ],
)
def test_tampering_is_found(tmp_path: Path, statements: list[str], problem: str) -> None:
    recorded(tmp_path, *"abcde")
    assert verify(tmp_path / NAME).problems == []
    tampered(tmp_path, *statements)
    assert problem in verify(tmp_path / NAME).problems
    result = CliRunner().invoke(app, ["audit", "show", "--data", str(tmp_path)])  # what is left can be looked at
    assert result.exit_code == 0, result.output


def test_a_head_noted_elsewhere_finds_what_the_file_does_not_show(tmp_path: Path) -> None:
    heads = recorded(tmp_path, *"abcde")
    rewritten(tmp_path, 2)
    assert verify(tmp_path / NAME, {1: heads[1]}).problems == []
    assert verify(tmp_path / NAME, {5: heads[5]}).problems == ["row 5: its hash is not the one noted elsewhere"]


def test_an_end_cut_off_with_its_head_is_found_by_a_head_noted_elsewhere(tmp_path: Path) -> None:
    heads = recorded(tmp_path, *"abcde")
    tampered(
        tmp_path, "DELETE FROM audit WHERE number > 3", f"UPDATE meta SET value = '3:{heads[3]}' WHERE key = 'head'"
    )
    assert verify(tmp_path / NAME).problems == []
    assert verify(tmp_path / NAME, {4: heads[4]}).problems == ["row 4 is gone, which was noted elsewhere"]


@pytest.mark.parametrize("left", [1, TRIMMED + 1])
def test_rows_removed_from_the_front_are_no_way_around_heads_noted_elsewhere(tmp_path: Path, left: int) -> None:
    """Somebody writes a new audit of one's own making, which says that all that came before was too old."""
    heads = recorded(tmp_path, *"abcde")
    hash, statements = START, ["DELETE FROM audit"]
    for number in range(101, 101 + left):
        record = {"kind": "request"} if number < 100 + left else {"kind": "trimmed", "through": 100, "hash": START}
        entry = canonical(record | {"number": number})
        hash = chained(hash, entry)
        statements.append(f"INSERT INTO audit VALUES ({number}, '{entry}', '{hash}')")
    tampered(tmp_path, *statements, f"UPDATE meta SET value = '{100 + left}:{hash}' WHERE key = 'head'")
    (problem,) = verify(tmp_path / NAME, heads).problems
    assert ("which is too many" in problem) if left == 1 else ("nothing shows" in problem)


def test_a_gateway_that_finds_its_end_cut_off_goes_on_and_says_so_for_good(tmp_path: Path) -> None:
    recorded(tmp_path, *"abc")
    tampered(tmp_path, "DELETE FROM audit WHERE number = 3")
    recorded(tmp_path, "d")
    (problem,) = verify(tmp_path / NAME).problems
    assert problem.startswith("row 3: the rows before it did not end with the one written last, 3:")


def test_rows_are_not_changed_or_removed_by_mistake(tmp_path: Path) -> None:
    store = AuditStore(tmp_path / NAME)
    store.append({"kind": "request"})
    for statement in ("UPDATE audit SET entry = '{}'", "DELETE FROM audit"):
        with pytest.raises(sqlite3.IntegrityError, match="added to alone"), store.transaction():
            store.execute(statement)
    store.close()


def test_the_oldest_go_when_there_are_too_many_and_the_chain_goes_on(tmp_path: Path) -> None:
    store = AuditStore(tmp_path / NAME, most=2 * TRIMMED)
    heads = {}
    for number in range(2 * TRIMMED + 500):
        row = store.append({"kind": "request", "path": str(number)})
        heads[row] = store.hash
    store.close()
    verdict = verify(tmp_path / NAME, {10: heads[10], 2 * TRIMMED: heads[2 * TRIMMED]})
    assert (verdict.problems, verdict.rows) == ([], TRIMMED + 501)
    assert verify(tmp_path / NAME, {TRIMMED: heads[TRIMMED]}).problems == [], "the last of those that were removed"
    assert "nothing shows" in verify(tmp_path / NAME, {10: heads[10]}).problems[0]
    store = AuditStore(tmp_path / NAME, most=2 * TRIMMED)
    store.append({"kind": "request"})
    store.close()
    assert verify(tmp_path / NAME).problems == []
    tampered(tmp_path, f"DELETE FROM audit WHERE number <= {TRIMMED + 7}")  # a few more than the chain says
    assert verify(tmp_path / NAME).problems == [f"rows {TRIMMED + 1} to {TRIMMED + 7} are gone"]


def test_it_is_checked_and_backed_up_with_the_other_stores(tmp_path: Path) -> None:
    heads = recorded(tmp_path, *"abc")
    assert [report.ok for report in map(checking.check, checking.stores_in(tmp_path))] == [True]
    backup.backup(tmp_path, tmp_path / "copy", version="x")
    backup.restore(tmp_path / "copy", tmp_path / "again")
    assert verify(tmp_path / "again" / NAME, heads).problems == []


# --- at a gateway ------------------------------------------------------------------------------------------------------------


async def audited(net: World, folder: Path, **settings: Any) -> AuditStore:
    """A gateway that keeps an audit, and the audit."""
    store = AuditStore(folder / NAME)
    bus = net.network.bus("g1")
    given = GatewaySettings.build({"data": folder, "name": "g1", **settings})
    await net.nursery.start(GatewayAgent("g1", given, bus, store).run)
    return store


def requests(folder: Path) -> list[tuple[Any, ...]]:
    rows = [r for r in read(folder / NAME, 1000) if r["kind"] == "request"]
    return [(r["who"], r["method"], r["path"], r["allowed"], r["code"]) for r in rows]


async def test_every_request_that_changes_something_is_recorded(tmp_path: Path, net: World, cluster: Cluster) -> None:
    await net.coordinator()
    store = await audited(net, tmp_path, token_public_key=cluster.public)
    api, viewer, operator = api_of(net), cluster.token(Role.VIEWER), cluster.token(Role.OPERATOR, subject="bob")

    async def fails(kind: type[WattleError], path: str, payload: Any = None, token: str | None = None) -> None:
        with pytest.raises(kind):
            await api(path, payload, token=token)

    await fails(Denied, "runs", document())
    await fails(Denied, "runs/r1/cancel", token=viewer)
    await fails(Denied, "runs/r1/cancel", token=cluster.token(now=0.0))
    await fails(NotFound, "runs/r1/cancel", token=operator)
    await fails(Denied, "prune", {"runs": ["r1"]}, token=operator)
    run = (await api("runs", document(), token=operator))["id"]
    await api("runs", token=viewer)  # reads are not
    assert requests(tmp_path) == [
        ("unknown", "get", "runs", False, "TOKEN_MISSING"),
        ("ann", "get", "runs/r1/cancel", False, "FORBIDDEN"),
        ("ann", "get", "runs/r1/cancel", False, "TOKEN_EXPIRED"),
        ("bob", "get", "runs/r1/cancel", True, None),
        ("bob", "get", "prune", False, "FORBIDDEN"),
        ("bob", "get", "runs", True, None),
    ]
    outcomes = [r for r in read(tmp_path / NAME, 1000) if r["kind"] == "outcome"]
    assert [(r["of"], r["code"], r.get("shown")) for r in outcomes] == [(4, "RUN_NOT_FOUND", None), (7, "OK", run)]
    last = read(tmp_path / NAME, 2)[0]
    assert last["payload"] == hashlib.sha256(json.dumps(document()).encode()).hexdigest()
    assert (last["role"], last["gateway"], len(last["token"])) == ("operator", "g1", 16)
    (state,) = await net.client.get(KEYS.state("gateway", "g1"), timeout=PATIENCE)
    assert json.loads(state.payload)["audit"] == {"number": store.number, "hash": store.hash}
    assert verify(tmp_path / NAME, {store.number: store.hash}).problems == []


async def test_puts_and_deletes_too_and_without_tokens_by_nobody_known(tmp_path: Path, net: World) -> None:
    await net.coordinator()
    await audited(net, tmp_path, audit=True)
    net.client.put(KEYS.api("workflows/w"), json.dumps(document("w")).encode())
    await api_of(net)("workflows/w")
    net.client.delete(KEYS.api("workflows/w"))
    with pytest.raises(NotFound):
        await api_of(net)("workflows/w")
    assert requests(tmp_path) == [
        ("anonymous", "put", "workflows/w", True, None),
        ("anonymous", "delete", "workflows/w", True, None),
    ]


@pytest.mark.parametrize(
    ("attachment", "recorded"),
    [
        (b'{"session": "5e01"}', "5e01"),
        (b'{"token": "is not looked at", "session": "5e01"}', "5e01"),
        (None, None),
        (b"no JSON", None),
        (b'{"session": 5}', None),
        (b'{"session": "../x"}', None),
        (b'{"session": "5e015e015e015e015e015e015e015e015"}', None),
    ],
)
async def test_where_a_request_says_it_comes_from(
    tmp_path: Path, net: World, attachment: bytes | None, recorded: str | None
) -> None:
    """And nothing depends on it; what links say of certificates is in test_cluster_tokens.py, over real ones."""
    await net.coordinator()
    await audited(net, tmp_path, audit=True)
    await net.client.get(KEYS.api("runs/r1/cancel"), timeout=PATIENCE, attachment=attachment)
    (row,) = (r for r in read(tmp_path / NAME, 10) if r["kind"] == "request")
    assert (row["session"], row["certificate"], row["allowed"]) == (recorded, None, True)


async def test_nothing_is_asked_before_it_is_recorded(tmp_path: Path, net: World) -> None:
    """What a gateway that is killed at this very moment leaves behind: the record, and not what became of it."""
    seen = Inbox()

    def coordinator(query: Query) -> None:
        seen(requests(tmp_path))  # as another process reads it: what is committed
        refuse(query, Denied("no"))

    await audited(net, tmp_path, audit=True)
    net.client.serve(KEYS.cmd("c1", "*"), coordinator)
    alive = net.client.declare_alive(KEYS.alive("coordinator", "c1", "1"))
    with pytest.raises(Denied):
        await api_of(net)("runs/r1/cancel")
    alive.undeclare()
    assert seen[0] == [("anonymous", "get", "runs/r1/cancel", True, None)]


async def test_what_cannot_be_recorded_is_not_done(tmp_path: Path, net: World, monkeypatch: pytest.MonkeyPatch) -> None:
    coordinator = await net.coordinator()
    store = await audited(net, tmp_path, audit=True)

    def full(record: Any) -> int:
        raise OSError("no room")

    monkeypatch.setattr(store, "append", full)
    with pytest.raises(WattleError, match="no room"):
        await api_of(net)("runs/r1", document())
    assert coordinator.core.runs == {}


def test_it_is_kept_where_tokens_are_checked_and_where_it_is_asked_for(cluster: Cluster) -> None:
    build: Callable[..., GatewaySettings] = lambda **given: GatewaySettings.build({"name": "g", **given})  # noqa: E731
    assert [build().audited, build(audit=True).audited] == [False, True]
    assert build(token_public_key=cluster.public).audited
    assert not build(token_public_key=cluster.public, audit=False).audited


def test_the_commands(tmp_path: Path) -> None:
    def run(*args: str, status: int = 0) -> str:
        result = CliRunner().invoke(app, ["audit", *args, "--data", str(tmp_path)])
        assert result.exit_code == status, result.output
        return result.output

    run("verify", status=2)
    store = AuditStore(tmp_path / NAME)
    asked = {
        "kind": "request",
        "at": "2026-01-01T00:00:00Z",
        "role": "viewer",
        "method": "get",
        "path": "runs/r/cancel",
    }
    first = store.append({**asked, "who": "ann", "allowed": True, "code": None, "certificate": "client:ann@default"})
    store.append({"kind": "outcome", "at": "2026-01-01T00:00:01Z", "of": first, "code": "OK", "shown": "r"})
    store.append({**asked, "who": "bob", "allowed": False, "code": "FORBIDDEN", "session": "5e"})
    head = f"{store.number}:{store.hash}"
    store.close()
    shown = run("show")
    assert "1\t2026-01-01T00:00:00Z\tann\tviewer\tclient:ann@default\tget runs/r/cancel\tallowed, OK r" in shown
    assert "bob\tviewer\t5e\tget runs/r/cancel\trefused, FORBIDDEN" in shown
    assert "ann" not in run("show", "--refused")
    assert [r["who"] for r in json.loads(run("show", "--json", "--who", "ann"))] == ["ann"]
    assert "allowed, OK r" in run("show", "--limit", "1", "--who", "ann"), (
        "the newest of ann's, not ann's among the newest"
    )
    assert head in run("verify", "--head", head)
    assert json.loads(run("verify", "--json"))["problems"] == []
    run("verify", "--head", "3:x", status=2)
    assert "not the one noted elsewhere" in run("verify", "--head", f"3:{'0' * 64}", status=1)
    tampered(tmp_path, "DELETE FROM audit WHERE number = 2")
    assert "rows 2 to 2 are gone" in run("verify", status=1)
