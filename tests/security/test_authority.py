"""What an authority makes, and what of it can be used."""

import fcntl
import json
import os
import shutil
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import zenoh

from tests.security.members import LOOPBACK, Members, ear, free_port
from wattle.bus.config import ZenohOptions, open_ways
from wattle.cli.hosting import run_roles
from wattle.client.connection import connection
from wattle.errors import NotFound, SettingsError, WattleError
from wattle.protocol.records import seconds
from wattle.security import authority as authority_module
from wattle.security import certificates
from wattle.security.authority import DAY, Authority, Wanted
from wattle.security.bundle import read_bundle
from wattle.security.certificates import is_signed
from wattle.security.joining import settings_of_member
from wattle.security.membership import join, keep, learn, problems
from wattle.security.private import replace_private
from wattle.security.roles import Role
from wattle.security.tokens import issue
from wattle.settings.agents import AGENTS, RuntimeSettings


def _never(endpoints: list[str]) -> None:
    raise AssertionError(f"it is ready at {endpoints}")


@pytest.fixture
def made(tmp_path: Path) -> Members:
    return Members(tmp_path / "ca")


def test_everything_of_an_authority_is_its_owners_alone(made: Members) -> None:
    made.issue(Wanted("n1", ("runtime",)))
    for path in [made.folder, *made.folder.rglob("*")]:
        if path.name != "token.pub":
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_an_authority_is_made_once(made: Members) -> None:
    with pytest.raises(SettingsError, match="has a cluster already"):
        Authority.create(made.folder)


def test_an_authority_whose_making_was_broken_off_is_made_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stopped(path: Path, text: str) -> None:
        if path.name == broken:
            raise OSError(f"stopped at {broken}")
        replace_private(path, text)

    for broken in ("members.json", "ca.pem", "token.key", "token.pub", "ca.key"):
        with monkeypatch.context() as patch:
            patch.setattr(authority_module, "replace_private", stopped)
            with pytest.raises(OSError, match="stopped at"):
                Authority.create(tmp_path / broken, tokens=True)
        Authority.create(tmp_path / broken, tokens=True)
        with Authority.open(tmp_path / broken) as authority:
            (bundle,) = authority.issue([Wanted("g1", ("gateway",))])
            issue(tmp_path / broken / "token.key", subject="a", role=Role.VIEWER, namespaces=["default"], ttl=60)
        assert "PUBLIC KEY" in join(bundle).token_keys


def test_an_authority_is_made_by_one_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def made_while_locked(seconds: float) -> tuple[bytes, bytes]:
        handle = os.open(tmp_path, os.O_RDONLY)
        with pytest.raises(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.close(handle)
        return new_authority(seconds)

    new_authority = certificates.new_authority
    monkeypatch.setattr(certificates, "new_authority", made_while_locked)
    Authority.create(tmp_path)


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"version": 1, "members": [{}]}', '{"version": 1, "members": 5}'])
def test_a_damaged_folder_is_told_of(made: Members, content: str) -> None:
    (made.folder / "members.json").write_text(content)
    with pytest.raises(SettingsError, match="is damaged"), Authority.open(made.folder):
        pass


def test_an_authority_that_others_may_read_is_refused(made: Members) -> None:
    (made.folder / "ca.key").chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"), Authority.open(made.folder):
        pass


def test_no_cluster_here(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="make one with wattle cluster init"), Authority.open(tmp_path / "none"):
        pass
    with pytest.raises(SettingsError, match="is no cluster's folder"), Authority.open(tmp_path):
        pass


@pytest.mark.parametrize(
    ("wanted", "problem"),
    [
        (Wanted("n1", ("runtime",)), "the name 'n1' is n1's"),
        (Wanted("up-gateway", ("gateway",)), "the name 'up-gateway' is up's"),
        (Wanted("../n1", ("runtime",)), "must start with a letter"),
        (Wanted("n*", ("runtime",)), r"holds '\*'"),
        (Wanted("n2", ("king",)), "role 'king' is none of"),
        (Wanted("n2", ()), "at least one role"),
        (Wanted("n2", ("client", "runtime")), "do not go together"),
        (Wanted("n2", ("runtime",), ("no host",)), "is no name or address"),
        (Wanted("n2", ("client",), ("h",)), "nobody connects to a client"),
        (Wanted("n2", ("runtime",), namespaces=("a", "b")), "only routers serve several"),
        (Wanted("n2", ("runtime",), namespaces=("a/b",)), "namespace 'a/b'"),
        (Wanted("n" * 60, ("coordinator", "gateway")), "may have 64"),
        (Wanted("n2", ("runtime",), seconds=0), "has to last"),
        (Wanted("n2", ("runtime",), ("h",), 65536), "no port 65536"),
        (Wanted("n2", ("runtime",), ("h",), 0), "no port 0"),
        (Wanted("r1", ("router",), ("h",), namespaces=("a", "b", "a")), "named twice"),
    ],
)
def test_what_cannot_be_issued_changes_nothing(made: Members, wanted: Wanted, problem: str) -> None:
    made.issue(Wanted("n1", ("runtime",)), Wanted("up", ("coordinator", "gateway", "runtime")))
    before = (made.folder / "members.json").read_text()
    with pytest.raises(WattleError, match=problem):
        made.issue(Wanted("n3", ("runtime",)), wanted)
    assert (made.folder / "members.json").read_text() == before
    assert not made.bundle("n3").exists()


def test_who_is_revoked_does_not_come_back_with_the_name(made: Members) -> None:
    made.issue(Wanted("n1", ("runtime",)), Wanted("n2", ("runtime",)))
    old = made.member("n1")
    with Authority.open(made.folder) as authority:
        authority.revoke(["n1"])
        with pytest.raises(NotFound, match="members are n2"):
            authority.renew(["n1"])
    assert not made.bundle("n1").exists()
    made.issue(Wanted("n1", ("runtime",)))
    new = made.member("n1")
    assert new.bundle.common_name == old.bundle.common_name + "#2"
    assert new.rosters[0].member(old.bundle.common_name) is None
    told = learn(old, new.signed[0])
    assert told is not None
    assert any("revoked" in problem for problem in problems(told))


def test_a_renewed_member_has_another_key_and_the_same_name(made: Members) -> None:
    made.issue(Wanted("n1", ("runtime",)))
    old, rosters = made.member("n1").bundle, made.member("n1").rosters
    with Authority.open(made.folder) as authority:
        authority.renew(["n1"])
    new = made.member("n1").bundle
    assert (new.common_name, new.key == old.key) == (old.common_name, False)
    assert made.member("n1").rosters == rosters, "nobody has to learn anything"


def test_a_renewal_that_is_broken_off_is_still_to_be_made(made: Members, monkeypatch: pytest.MonkeyPatch) -> None:
    made.issue(Wanted("n1", ("runtime",), seconds=90 * DAY))
    before = made.member("n1").bundle
    later = time.time() + 80 * DAY
    with monkeypatch.context() as patch, Authority.open(made.folder) as authority:
        patch.setattr(time, "time", lambda: later)
        patch.setattr(certificates.Signer, "certify", _no_room)
        with pytest.raises(OSError, match="no room"):
            authority.renew(["n1"])
    with Authority.open(made.folder) as authority:
        assert authority.members[0].expires_at == seconds(before.expires_at), "as the bundle that there is"


def _no_room(*given: object) -> None:
    raise OSError("no room")


def test_a_folder_that_is_a_copy_of_an_earlier_one_makes_newer_rosters(
    made: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made.issue(Wanted("n1", ("runtime",)), Wanted("n2", ("runtime",)))
    copy = shutil.copytree(made.folder, tmp_path / "copy")
    for name in ("n3", "n4"):
        made.issue(Wanted(name, ("runtime",)))
    member = made.member("n4")
    later = time.time() + 60
    monkeypatch.setattr(time, "time", lambda: later)
    with Authority.open(copy) as authority:
        authority.revoke(["n2"])
        roster, signature = authority.roster("default")
    told = learn(member, (roster.as_text(), signature))
    assert told is not None, "what was revoked since is told to those who know a roster of before"
    assert [one.name for one in told.rosters[0].members] == ["n1"]


def test_only_what_the_authority_signed_is_learned(made: Members, tmp_path: Path) -> None:
    made.issue(Wanted("n1", ("runtime",)))
    member = made.member("n1")
    made.issue(Wanted("n2", ("runtime",)), Wanted("other", ("runtime",), namespaces=("elsewhere",)))
    text, signature = made.member("n2").signed[0]
    version = f'"version": {made.member("n2").rosters[0].version}'
    assert text.count(version) == 1
    assert is_signed(text, signature, member.bundle.authority)
    for forged in (
        (text.replace(version, version + "9"), signature),
        (text, ""),
        (text, "!"),
        (text, member.signed[0][1]),
        ("{}", signature),
        ('{"members":' + "[" * 100_000, signature),
        (text.replace(version, '"version": 1e999'), signature),
        (text.replace('"namespace": "default"', '"namespace": "*"'), signature),
        (text.replace('"name": "n2"', '"name": "*"'), signature),
        (text.replace('"token_keys": ""', '"token_keys": "\ud800"'), signature),
        member.signed[0],
        made.member("other").signed[0],
    ):
        assert learn(member, forged) is None
    newer = learn(member, (text, signature))
    assert newer is not None
    keep(newer, tmp_path)
    assert join(made.bundle("n1"), tmp_path).rosters == newer.rosters
    kept = tmp_path / "roster-default.json"
    kept.write_text(kept.read_text().replace("n2", "n9"))
    assert join(made.bundle("n1"), tmp_path).rosters == member.rosters, "what was tampered with counts for nothing"


def test_a_bundle_that_others_can_read_is_refused(made: Members) -> None:
    (path,) = made.issue(Wanted("n1", ("runtime",)))
    path.chmod(0o640)
    with pytest.raises(SettingsError, match="chmod 600"):
        read_bundle(path)


@pytest.mark.parametrize("change", ["", "[]", "{}", '{"metadata": {"wattle": {"format": 9}}}', "\0\xff", None])
def test_what_is_no_bundle_is_refused(made: Members, change: str | None) -> None:
    (path,) = made.issue(Wanted("n1", ("runtime",)))
    data = json.loads(path.read_text())
    data["metadata"]["wattle"]["rosters"] = [["{", ""]]
    path.write_text(json.dumps(data) if change is None else change)
    with pytest.raises(SettingsError):
        read_bundle(path)


def test_problems_are_told_with_what_to_do(made: Members) -> None:
    made.issue(Wanted("n1", ("runtime",), ("h1",), seconds=90 * DAY))
    member, now = made.member("n1"), time.time()
    assert problems(member, ["tls/h1:7447", "tls/0.0.0.0:7447", "unixsock-stream//x"]) == []
    assert [p.split(":")[0] for p in problems(member, now=now + 61 * DAY)] == [
        f"the certificate of n1 expires at {member.bundle.expires_at}".split(":")[0]
    ]
    assert "wattle cluster renew n1" in problems(member, now=now + 91 * DAY)[0]
    assert "issue one with --host h2" in problems(member, ["tls/h2:7447"])[0]
    assert problems(replace(member, bundle=replace(member.bundle, common_name="x"))) != []


def test_any_zenoh_client_can_be_opened_with_a_bundle(made: Members) -> None:
    made.issue(Wanted("g1", ("gateway",), (LOOPBACK,), free_port()), Wanted("alice", ("client",)))
    with (
        ear(made.open("g1")) as listener,
        zenoh.open(zenoh.Config.from_json5(made.bundle("alice").read_text())) as session,
    ):
        session.put("wattle/default/api/v1/runs/x", "")
        listener.until("put", "wattle/default/api/v1/runs/x")


# --- settings ------------------------------------------------------------------------------------------------------------


def test_a_bundle_says_who_where_and_with_whom(made: Members, tmp_path: Path) -> None:
    made.issue(
        Wanted("n1", ("runtime",), ("h1",)),
        Wanted("n2", ("coordinator", "runtime"), ("h2", "::2"), 7448),
        Wanted("n3", ("runtime",)),
        Wanted("alice", ("client",)),
    )

    def settings(bundle: str, kind: Any = RuntimeSettings, **flags: Any) -> Any:
        flags = {"data": tmp_path, "bundle": made.bundle(bundle)} | flags
        return settings_of_member(kind, made.bundle(bundle), tmp_path, flags=flags)

    local = f"unixsock-stream/{tmp_path}/wattle.sock"
    n1, n2, n3 = (settings(name) for name in ("n1", "n2", "n3"))
    assert (n1.name, n1.mode, n1.connect, n1.listen) == ("n1", "peer", (), (local, "tls/0.0.0.0:7447"))
    assert (n2.connect, n2.listen) == (("tls/h1:7447",), (local, "tls/[::]:7448"))
    assert (n3.connect, n3.listen) == (("tls/h1:7447", "tls/h2:7448", "tls/[::2]:7448"), (local,))
    assert settings("n1", connect=["tls/x:1"]).connect == ("tls/x:1",)
    with pytest.raises(SettingsError, match=r"the bundle .* is for 'n1'"):
        settings("n1", name="n9")
    with pytest.raises(SettingsError, match="is for 'default'"):
        settings("n1", namespace="other")
    with pytest.raises(SettingsError, match="is for runtime, not for a coordinator"):
        settings("n1", AGENTS["coordinator"])
    with pytest.raises(SettingsError, match="gateways take no requests"):
        connection(bundle=made.bundle("n1"), data=tmp_path)


def test_with_routers_about_who_has_no_host_is_a_client_of_them(made: Members, tmp_path: Path) -> None:
    made.issue(
        Wanted("r1", ("router",), ("h1",), namespaces=("default", "other")),
        Wanted("r2", ("router",), ("h2",)),
        Wanted("n1", ("runtime",)),
        Wanted("alice", ("client",)),
    )
    both = ("tls/h1:7447", "tls/h2:7447")
    n1, r1, r2 = (made.member(name) for name in ("n1", "r1", "r2"))
    assert (n1.mode, n1.connect, n1.listen) == ("client", both, ())
    assert (r1.mode, r1.connect) == ("router", ())
    assert (r2.mode, r2.connect) == ("router", both[:1])
    assert connection(bundle=made.bundle("alice"), data=tmp_path).settings.endpoints == both
    known = {
        name
        for subject in n1.zenoh_values()["access_control"]["subjects"]
        for name in subject.get("cert_common_names", ())
    }
    assert known == {"router:r1@default", "router:r2@default"}, "whom it cannot meet it need not know"


# --- insecure --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags",
    [
        {"listen": ["tcp/127.0.0.1:0"]},
        {"listen": ["tls/127.0.0.1:0"]},
        {"listen": ["udp/127.0.0.1:0"]},
        {"connect": ["tcp/127.0.0.1:9"]},
        {"multicast": True},
    ],
)
def test_an_agent_does_not_start_on_what_anybody_may_reach(tmp_path: Path, flags: dict[str, Any]) -> None:
    with pytest.raises(SettingsError, match="--insecure") as caught:
        run_roles(["runtime"], {"data": tmp_path, "config": None, **flags}, _never)
    assert caught.value.code == "INSECURE"
    assert os.listdir(tmp_path) == [], "it has not begun"


def test_what_is_open_is_known_before_the_data_folder_is_made(tmp_path: Path) -> None:
    assert open_ways(ZenohOptions(listen=(f"unixsock-stream/{tmp_path}/new/wattle.sock",))) == []


def test_a_bundle_makes_no_other_endpoint_safe(made: Members, tmp_path: Path) -> None:
    made.issue(Wanted("n1", ("runtime",)))
    with pytest.raises(SettingsError, match=r"tcp/127\.0\.0\.1:0"):
        run_roles(
            ["runtime"],
            {"data": tmp_path, "config": None, "bundle": made.bundle("n1"), "listen": ["tcp/127.0.0.1:0"]},
            _never,
        )


def test_one_machine_imports_none_of_it() -> None:
    code = """if True:
        import sys, wattle.host, wattle.cli.app, wattle.client.blocking
        print(*(name for name in sys.modules if name.startswith(("cryptography", "wattle.security."))))
    """
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"cryptography", "wattle.security.bundle", "wattle.security.access"} & set(found.stdout.split())
