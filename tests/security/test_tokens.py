"""Tokens: what is in them, what is refused of them, and what gateways let whom do. Every intruder is shown refused, and let in by right."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from typer.testing import CliRunner

from tests.bus.networks import PATIENCE, Inbox
from tests.coordinator.world import KEYS, World, document
from tests.security.conftest import Api, Cluster, api_of, attached, new_cluster
from wattle.cli.app import app
from wattle.client.credentials import Credentials
from wattle.errors import Denied, InvalidRequest, NotFound, SettingsError
from wattle.gateway.agent import GatewayAgent
from wattle.gateway.gate import MOST_ATTACHED
from wattle.gateway.request import Method
from wattle.security.roles import MAY, Action, Role
from wattle.security.tokens import LEEWAY, Checker, Identity, issue
from wattle.settings import ClientSettings

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"
NOW = 1_800_000_000.0


def check(checker: Checker, token: str, now: float | None = None) -> Identity:
    """Who a token is, now."""
    at = time.time() if now is None else now
    identity = checker.read(token, at)
    checker.check(identity, at)
    return identity


def refused(checker: Checker, token: str, now: float | None = None) -> tuple[str, str]:
    with pytest.raises(Denied) as caught:
        check(checker, token, now)
    return caught.value.code, caught.value.message


def forged(key: Any, cluster: Cluster, *, kid: str | None = None, algorithm: str = "EdDSA", **claims: Any) -> str:
    """A token made by hand; a claim that is None is left out."""
    given = {
        "sub": "ann",
        "role": "admin",
        "namespaces": ["default"],
        "aud": cluster.id,
        "iat": int(time.time()),
        "exp": int(time.time()) + 600,
        "jti": "x",
    } | claims
    given = {name: value for name, value in given.items() if value is not None}
    return jwt.encode(given, key, algorithm=algorithm, headers={"kid": kid or cluster.id})


def signing_key(cluster: Cluster) -> Any:
    return load_pem_private_key(cluster.private.read_bytes(), None)


# --- the tokens themselves -------------------------------------------------------------------------------------------------


def test_a_token_says_who_it_is(cluster: Cluster) -> None:
    checker = Checker(cluster.public, "default")
    token = cluster.token(Role.OPERATOR, now=NOW, ttl=60, namespaces=["default", "other"])
    for _ in range(2):  # the second time it is remembered
        identity = check(checker, token, NOW)
        assert (identity.subject, identity.role, identity.namespaces) == ("ann", Role.OPERATOR, ("default", "other"))
        assert identity.expires == NOW + 60


def test_it_ends_also_where_it_is_remembered(cluster: Cluster) -> None:
    checker = Checker(cluster.public, "default")
    token = cluster.token(now=NOW, ttl=60)
    check(checker, token, NOW + 60 + LEEWAY - 0.1)
    assert refused(checker, token, NOW + 60 + LEEWAY)[0] == "TOKEN_EXPIRED"
    assert refused(Checker(cluster.public, "default"), token, NOW + 60 + LEEWAY)[0] == "TOKEN_EXPIRED"


def test_it_counts_in_its_namespaces_alone(cluster: Cluster) -> None:
    elsewhere = cluster.token(namespaces=["other"])
    code, message = refused(Checker(cluster.public, "default"), elsewhere)
    assert (code, "other" in message) == ("FORBIDDEN", True)
    check(Checker(cluster.public, "other"), elsewhere, time.time())
    check(Checker(cluster.public, "default"), cluster.token(namespaces=["*"]), time.time())


def test_of_another_cluster(tmp_path: Path, cluster: Cluster) -> None:
    other = new_cluster(tmp_path / "other")
    code, message = refused(Checker(cluster.public, "default"), other.token())
    assert (code, message) == ("TOKEN_INVALID", "the token is refused: it is not signed by a key of this cluster")
    check(Checker(other.public, "default"), other.token(), time.time())
    pretending = forged(signing_key(other), cluster)  # another's key under this one's name
    assert refused(Checker(cluster.public, "default"), pretending)[0] == "TOKEN_INVALID"


def test_for_another_audience(cluster: Cluster) -> None:
    named = Checker(cluster.public, "default", "lab")
    code, message = refused(named, cluster.token())
    assert (code, "another cluster" in message) == ("TOKEN_INVALID", True)
    check(named, cluster.token(cluster="lab"), time.time())


def test_tampered(cluster: Cluster) -> None:
    checker, token = Checker(cluster.public, "default"), cluster.token(Role.VIEWER)
    head, body, signature = token.split(".")
    admin = jwt.utils.base64url_encode(
        jwt.utils.base64url_decode(body).replace(b'"viewer"', b'"admin"')
    ).decode()  # what a viewer would like to be
    assert refused(checker, f"{head}.{admin}.{signature}")[0] == "TOKEN_INVALID"
    for place in range(0, len(token) - 1, 7):  # not all bits of the last letter count
        other = "A" if token[place] != "A" else "B"
        assert refused(checker, token[:place] + other + token[place + 1 :])[0] == "TOKEN_INVALID"
    check(checker, token, time.time())


def test_without_a_signature_or_with_another_algorithm(cluster: Cluster) -> None:
    checker = Checker(cluster.public, "default")
    assert refused(checker, forged(None, cluster, algorithm="none"))[0] == "TOKEN_INVALID"
    # the public key, which everybody may have, taken for a shared secret
    secret = checker._keys[cluster.id].public_bytes_raw()
    assert refused(checker, forged(secret, cluster, algorithm="HS256"))[0] == "TOKEN_INVALID"
    check(checker, forged(signing_key(cluster), cluster), time.time())


@pytest.mark.parametrize(
    "claims",
    [
        {"sub": None},
        {"sub": "../x"},
        {"role": "root"},
        {"role": ["admin"]},
        {"namespaces": "default"},
        {"namespaces": [1]},
        {"aud": None},
        {"exp": None},
        {"exp": "tomorrow"},
        {"exp": 1e308},
        {"exp": True},
        {"iat": time.time() + 3600},
        {"jti": None},
    ],
)
def test_signed_but_not_sound(cluster: Cluster, claims: dict[str, Any]) -> None:
    assert (
        refused(Checker(cluster.public, "default"), forged(signing_key(cluster), cluster, **claims))[0]
        == "TOKEN_INVALID"
    )


@pytest.mark.parametrize("text", ["", "x", "a.b", "a.b.c", "ä.b.c", "a.b.c.d", "e30.e30.e30", "A" * 9000 + ".b.c"])
def test_no_tokens(cluster: Cluster, text: str) -> None:
    assert refused(Checker(cluster.public, "default"), text)[0] == "TOKEN_INVALID"
    deep = jwt.utils.base64url_encode(b"[" * 3000).decode()
    assert refused(Checker(cluster.public, "default"), f"{deep}.e30.e30")[0] == "TOKEN_INVALID"


def test_while_one_key_takes_over_from_another_both_count(tmp_path: Path, cluster: Cluster) -> None:
    new = new_cluster(tmp_path / "new")
    both = tmp_path / "both.pub"
    both.write_bytes(cluster.public.read_bytes() + new.public.read_bytes())
    checker = Checker(both, "default")
    check(checker, cluster.token(), time.time())
    check(checker, new.token(cluster=cluster.id), time.time())


def test_keys_that_are_none(tmp_path: Path, cluster: Cluster) -> None:
    wrong = tmp_path / "wrong.pub"
    wrong.write_text("no key")
    with pytest.raises(SettingsError, match="Ed25519 public keys"):
        Checker(wrong, "default")
    os.chmod(cluster.private, 0o640)
    with pytest.raises(SettingsError, match="may be used by others"):
        cluster.token()


@pytest.mark.parametrize(
    "wrong", [{"subject": "a b"}, {"namespaces": []}, {"namespaces": ["**"]}, {"ttl": 0}, {"ttl": 1e9}]
)
def test_tokens_that_are_not_made(cluster: Cluster, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        cluster.token(**wrong)


# --- at a gateway --------------------------------------------------------------------------------------------------------


async def closed(net: World, cluster: Cluster) -> tuple[GatewayAgent, Api]:
    """A network whose gateway wants tokens."""
    await net.coordinator()
    return await net.gateway(token_public_key=cluster.public), api_of(net)


async def denied(answer: Any) -> str:
    with pytest.raises(Denied) as caught:
        await answer
    return caught.value.code


async def test_a_viewer_sees_and_does_not_cancel(net: World, cluster: Cluster) -> None:
    _, api = await closed(net, cluster)
    net.runtime()
    viewer, operator = cluster.token(Role.VIEWER), cluster.token(Role.OPERATOR)
    await api("runs/r1", document(), token=operator)
    for path, payload in (
        ("runs/r1/cancel", None),
        ("runs/r1/retry", None),
        ("runs/r2", document()),
        ("prune", {"runs": ["r1"]}),
    ):
        assert await denied(api(path, payload, token=viewer)) == "FORBIDDEN"
    run = await api("runs/r1", token=viewer)
    assert (run["status"] == "cancelled", [r["id"] for r in (await api("runs", token=viewer))["runs"]]) == (
        False,
        ["r1"],
    )
    await api("runs/r1/cancel", token=operator)
    assert (await api("runs/r1?wait=10", token=viewer))["status"] == "cancelled"


async def test_without_a_sound_token_nothing_is_told(tmp_path: Path, net: World, cluster: Cluster) -> None:
    _, api = await closed(net, cluster)
    other = new_cluster(tmp_path / "other")
    for path in ("runs", "health", "schema", "nodes/x/drain"):
        assert await denied(api(path)) == "TOKEN_MISSING"
        assert await denied(api(path, token="x.y.z")) == "TOKEN_INVALID"
        assert await denied(api(path, token=other.token())) == "TOKEN_INVALID"
        assert await denied(api(path, token=cluster.token(now=time.time() - 3600))) == "TOKEN_EXPIRED"
        assert await denied(api(path, token=cluster.token(namespaces=["other"]))) == "FORBIDDEN"
    assert (await api("health", token=cluster.token(Role.VIEWER)))["namespace"] == "default"


@pytest.mark.parametrize("attachment", [b"x", b"[]", b"{}", b'{"token": 5}', b"\xff", b"[" * 5000])
async def test_attachments_that_hold_no_token(net: World, cluster: Cluster, attachment: bytes) -> None:
    await closed(net, cluster)
    (reply,) = await net.client.get(KEYS.api("runs"), timeout=PATIENCE, attachment=attachment)
    told = json.loads(reply.payload)
    assert told["code"] == ("TOKEN_MISSING" if attachment == b"{}" else "TOKEN_INVALID")


async def test_an_attachment_that_is_too_long_is_not_read(net: World, cluster: Cluster) -> None:
    await closed(net, cluster)
    sound = attached(cluster.token(Role.VIEWER)) or b""
    for size, said in ((MOST_ATTACHED, '"namespace"'), (MOST_ATTACHED + 1, "TOKEN_INVALID")):
        (reply,) = await net.client.get(KEYS.api("health"), timeout=PATIENCE, attachment=sound.ljust(size))
        assert said in reply.payload.decode()


async def test_puts_and_deletes_carry_it_too(net: World, cluster: Cluster) -> None:
    _, api = await closed(net, cluster)
    rejected = Inbox()
    net.client.subscribe(KEYS.event_rejected, rejected)
    body, key = json.dumps(document("w")).encode(), KEYS.api("workflows/w")
    for number, (token, code) in enumerate([(None, "TOKEN_MISSING"), (cluster.token(Role.VIEWER), "FORBIDDEN")]):
        net.client.put(key, body, attachment=attached(token))
        net.client.delete(key, attachment=attached(token))
        for sample in (await rejected.size(2 * number + 2))[-2:]:
            said = json.loads(sample.payload)
            assert (said["key"], said["code"]) == (key, code)
            assert token is None or token not in sample.payload.decode()
    operator = cluster.token(Role.OPERATOR)
    net.client.put(key, body, attachment=attached(operator))
    assert (await api("workflows/w", token=operator))["name"] == "w"
    net.client.delete(key, attachment=attached(operator))
    with pytest.raises(NotFound):
        await api("workflows/w", token=operator)


async def test_a_gateway_without_a_key_asks_for_nothing(net: World, cluster: Cluster) -> None:
    await net.coordinator()
    await net.gateway()
    assert (await api_of(net)("runs", token="nonsense"))["runs"] == []


async def test_the_documented_roles_are_the_ones_there_are(net: World, cluster: Cluster) -> None:
    gateway, _ = await closed(net, cluster)
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.*?) \| (.*?) \| (.*?) \|$", SECURITY.read_text(), re.MULTILINE)
    may = {action: [bool(cell.strip()) for cell in cells] for action, _, *cells in rows}
    assert may == {str(action): [action in MAY[role] for role in Role] for action in Action}
    told = {action: sorted(re.findall(r"`([^`]+)`", requests)) for action, requests, *_ in rows if action != "read"}
    there: dict[str, list[str]] = {}
    for method, path, action, _ in gateway._routes.table:
        if action.changes:
            there.setdefault(str(action), []).append(f"{method} {path}")
    assert told == {action: sorted(requests) for action, requests in there.items()}
    assert {
        path for method, path, action, _ in gateway._routes.table if action is Action.READ and method is not Method.GET
    } == set()


# --- clients ---------------------------------------------------------------------------------------------------------------


def test_a_token_file_is_read_again_when_it_has_changed(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("a.b.c\n")
    file.chmod(0o600)
    credentials = Credentials(ClientSettings(token_file=file))
    assert credentials.attachment("5e") == b'{"token": "a.b.c", "session": "5e"}'
    file.write_text("a.b.longer\n")
    assert credentials.attachment("5e") == b'{"token": "a.b.longer", "session": "5e"}'
    file.chmod(0o644)
    with pytest.raises(SettingsError, match="chmod 600"):
        credentials.attachment("5e")
    file.unlink()
    with pytest.raises(SettingsError, match="cannot be read"):
        credentials.attachment("5e")
    assert Credentials(ClientSettings()).attachment("5e") == b'{"session": "5e"}'


@pytest.mark.parametrize("text", ["", "xyzzy", "aaa.bbb", "a b.c.d", "ä.b.c", "a\n.b.c"])
def test_what_is_no_token_is_not_sent_and_not_repeated(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTLE_TOKEN", f"{text} " if text else "")
    settings = ClientSettings.build({})
    if not text:
        assert Credentials(settings).attachment("5e") == b'{"session": "5e"}'
        return
    with pytest.raises(SettingsError, match="WATTLE_TOKEN holds no token") as caught:
        Credentials(settings)
    assert text not in caught.value.message.removeprefix("WATTLE_TOKEN holds no token; wattle token issue")
    assert text not in repr(settings)


def test_the_commands_make_keys_and_tokens(tmp_path: Path) -> None:
    def run(*args: str, fails: bool = False) -> str:
        result = CliRunner().invoke(app, ["token", *args])
        assert (result.exit_code != 0) == fails, result.output
        return result.output.strip()

    private, out = tmp_path / "token.key", tmp_path / "mine"
    fingerprint = run("key", str(private))
    run("key", str(private), fails=True)  # one that is there is never written over
    checker = Checker(tmp_path / "token.pub", "lab")
    assert (checker.cluster, private.stat().st_mode & 0o777) == (fingerprint, 0o600)
    printed = run(
        "issue", "--key", str(private), "--role", "viewer", "--name", "ann", "--namespace", "lab", "--ttl", "2m"
    )
    identity = check(checker, printed, time.time())
    assert (identity.subject, identity.role) == ("ann", Role.VIEWER)
    assert 100 < identity.expires - time.time() < 121
    run("issue", "--key", str(private), "--role", "admin", "--name", "ben", "--namespace", "*", "--out", str(out))
    assert (check(checker, out.read_text().strip(), time.time()).role, out.stat().st_mode & 0o777) == (
        Role.ADMIN,
        0o600,
    )
    run("issue", "--cluster", str(tmp_path), "--role", "admin", "--name", "ben", fails=True)  # no cluster's folder
    run("issue", "--key", str(private), "--role", "admin", "--name", "ben", "--ttl", "soon", fails=True)


def test_tokens_are_made_for_the_key_they_are_signed_with(cluster: Cluster) -> None:
    token = issue(cluster.private, subject="ann", role=Role.VIEWER, namespaces=["default"], ttl=60)
    assert jwt.decode(token, options={"verify_signature": False})["aud"] == cluster.id
