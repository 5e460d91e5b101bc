"""How a task is confined: the command line, the control group, the environment, and what is refused. Nothing is run here."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from wattle.core.model import Assignment
from wattle.errors import InvalidRequest, SettingsError
from wattle.runtime.confinement import (
    Confinement,
    base_name,
    check_asked,
    confine,
    level_of,
    user_of,
)
from wattle.runtime.layout import Folders, layout
from wattle.runtime.policy import Policy, Support, User
from wattle.runtime.support import check

PROGRAMS = {name: f"/usr/bin/{name}" for name in ("bwrap", "env", "prlimit", "setpriv")}
V1 = Support(
    root=True,
    user="root",
    groups={"memory": "/cg/memory/own", "pids": "/cg/pids", "cpu": "/cg/cpu/"},
    programs=PROGRAMS,
    system={"/usr": None, "/bin": "usr/bin"},
)
V2 = replace(V1, groups=dict.fromkeys(("memory", "pids", "cpu"), "/cg/own"), unified=True)
BARE = Support(user="me", programs={"prlimit": "/usr/bin/prlimit"}, no_sandbox="bwrap is not installed")
NOBODY = User("nobody", 65534, 65534, (65534, 7), "/nonexistent")
ALL = {
    "memory": 64 << 20,
    "cpu": 1.5,
    "processes": 8,
    "open_files": 20,
    "file_size": 1000,
    "disk": 1 << 20,
    "time": 1.2,
}


def task(**fields: Any) -> Assignment:
    return Assignment("r", "w", 3, 1, "f", **{"argv": ("cmd", "a b"), **fields})


def made(
    data: Path, assignment: Assignment, support: Support = V1, policy: Policy | None = None, user: User | None = None
) -> Confinement:
    folders = Folders(data)
    return confine(assignment, layout(assignment, folders), folders, policy or Policy(), support, user)


def pairs(argv: list[str], option: str) -> list[str]:
    """What follows each occurrence of an option."""
    return [argv[i + 1] for i, word in enumerate(argv) if word == option]


def test_limits_alone_take_a_group_and_prlimit(tmp_path: Path) -> None:
    request = made(tmp_path, task(limits=ALL)).request
    assert request["wrap"] == ["/usr/bin/prlimit", "--nofile=20:20", "--fsize=1000:1000", "--cpu=2:7", "--"]
    assert (request["sandboxed"], request["environ"]) == (False, None)
    group, base = request["group"], base_name(tmp_path)
    assert group["name"] == "t-r@w.3"
    assert list(group["bases"].items()) == [
        ("pids", f"/cg/pids/{base}"),
        ("memory", f"/cg/memory/own/{base}"),
        ("cpu", f"/cg/cpu/{base}"),
    ]
    assert group["files"] == [
        ["memory", "memory.limit_in_bytes", str(64 << 20)],
        ["memory", "memory.memsw.limit_in_bytes?", str(64 << 20)],
        ["cpu", "cpu.cfs_period_us", "100000"],
        ["cpu", "cpu.cfs_quota_us", "150000"],
        ["pids", "pids.max", "8"],
    ]
    assert request["reasons"]["memory"] == "out of memory: limits.memory is 64 MiB"
    assert request["reasons"]["disk"] == "used up its disk space: limits.disk is 1 MiB"


def test_version_2_has_one_group_for_all(tmp_path: Path) -> None:
    group = made(tmp_path, task(limits=ALL), V2).request["group"]
    assert group["bases"] == {"": f"/cg/own/{base_name(tmp_path)}"}
    assert group["files"] == [
        ["", "memory.max", str(64 << 20)],
        ["", "memory.oom.group", "1"],
        ["", "memory.swap.max?", "0"],
        ["", "cpu.max", "150000 100000"],
        ["", "pids.max", "8"],
    ]


def test_disk_is_of_the_folder_and_the_output_and_needs_nothing(tmp_path: Path) -> None:
    logs = [f"{tmp_path}/logs/r/w.3.{stream}" for stream in ("stdout", "stderr")]
    for folder, measured in (
        (None, f"{tmp_path}/work/r/w.3"),
        ("sub", f"{tmp_path}/work/r/w.3"),
        ("/data/x", "/data/x"),
    ):
        request = made(tmp_path, task(limits={"disk": 1 << 20}, working_dir=folder), BARE).request
        assert request["disk"] == {"most": 1 << 20, "paths": [measured, *logs]}
        assert (request["wrap"], request["group"]) == ([], None)
    request = made(tmp_path, task(), policy=Policy(default_limits={"disk": 1 << 16})).request
    assert request["disk"]["most"] == 1 << 16
    assert list(request["group"]["bases"]) == ["pids"]  # by which all that it started is ended
    assert made(tmp_path, task(limits={"time": 5})).request["disk"] is None
    with pytest.raises(InvalidRequest, match=r"limits.disk is 2 GiB; this node allows 1 GiB"):
        made(tmp_path, task(limits={"disk": 2 << 30}), policy=Policy(max_limits={"disk": 1 << 30}))


def test_each_folder_of_a_limit_stands_alone(tmp_path: Path) -> None:
    assert made(tmp_path, task(limits={"time": 5})).request["group"] is None
    group = made(tmp_path, task(limits={"cpu": 0.001})).request["group"]
    assert list(group["bases"]) == ["pids", "cpu"]  # pids: so that a group can be ended
    assert group["files"][-1] == ["cpu", "cpu.cfs_quota_us", "1000"]


def test_memory_falls_back_to_each_process_by_itself_and_hard_limits_are_not_exceeded(tmp_path: Path) -> None:
    support = replace(BARE, hard_limits={"nofile": 10, "cpu": 3})
    request = made(tmp_path, task(limits={"memory": 1 << 20, "open_files": 20, "time": 2}), support).request
    assert request["wrap"] == ["/usr/bin/prlimit", "--nofile=10:10", "--cpu=2:3", "--data=1048576:1048576", "--"]
    assert request["group"] is None


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"limits": {"processes": 3}}, "cannot enforce limits.processes: it has no control groups"),
        ({"limits": {"cpu": 1}}, "cannot enforce limits.cpu: it has no control groups"),
        ({"sandbox": "standard"}, "this node has no sandbox: bwrap is not installed"),
    ],
)
def test_what_a_bare_node_cannot_do_is_refused(tmp_path: Path, fields: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidRequest, match=said):
        made(tmp_path, task(**fields), BARE)


def test_without_prlimit_what_takes_it_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match=r"cannot enforce limits.time: it has no prlimit"):
        made(tmp_path, task(limits={"time": 3}), replace(BARE, programs={}))


def test_a_strict_sandbox_shows_the_system_and_the_own_folder_and_has_no_network(tmp_path: Path) -> None:
    confined = made(tmp_path, task(sandbox="strict", limits={"memory": 1 << 20, "processes": 8}))
    argv = confined.request["wrap"]
    own = os.path.realpath(tmp_path / "work" / "r" / "w.3")
    assert argv[:3] == ["/usr/bin/env", "--ignore-signal=TERM", "/usr/bin/bwrap"]
    assert {"--unshare-pid", "--unshare-ipc", "--unshare-net", "--unshare-user", "--die-with-parent"} < set(argv)
    assert pairs(argv, "--cap-drop") == ["ALL"]
    assert "--cap-add" not in argv
    assert pairs(argv, "--bind") == [own]
    assert pairs(argv, "--ro-bind") == ["/usr"]
    assert pairs(argv, "--symlink") == ["usr/bin"]
    assert pairs(argv, "--tmpfs") == ["/tmp", "/var/tmp", os.path.realpath(tmp_path)]
    assert pairs(argv, "--size") == ["1048576", "1048576"]
    assert pairs(argv, "--remount-ro") == [os.path.realpath(tmp_path), "/"]
    assert argv.index("--remount-ro") > argv.index("--bind")
    assert argv[-5:] == ["--chdir", own, "--", "/usr/bin/env", "--default-signal=TERM"]
    assert confined.request["environ"] == ["PATH", "LANG", "LC_*", "TZ"]
    assert confined.env == {"TMPDIR": "/tmp", "HOME": str(tmp_path / "work" / "r" / "w.3")}
    assert ["pids", "pids.max", "10"] in confined.request["group"]["files"]  # two are the sandbox's own


def test_a_standard_sandbox_shows_all_but_wattles_data_and_has_the_network(tmp_path: Path) -> None:
    support = replace(V1, resolver="/run/systemd/resolve/stub-resolv.conf")
    confined = made(tmp_path, task(sandbox="standard"), support)
    argv = confined.request["wrap"]
    assert "--unshare-net" not in argv
    assert pairs(argv, "--ro-bind") == ["/", "/run/systemd/resolve/stub-resolv.conf"]
    assert pairs(argv, "--tmpfs") == ["/run", "/tmp", "/var/tmp", os.path.realpath(tmp_path)]
    own = argv.index("--bind")
    assert pairs(argv, "--remount-ro") == [os.path.realpath(tmp_path), "/run"]
    assert argv.index(os.path.realpath(tmp_path)) < own  # its folder is shown over what hides the others
    assert (confined.request["environ"], confined.env) == (None, {"TMPDIR": "/tmp"})


def test_settings_add_what_a_strict_sandbox_shows(tmp_path: Path) -> None:
    argv = made(tmp_path, task(sandbox="strict"), policy=Policy(readable=(Path("/data/sets"),))).request["wrap"]
    assert "/data/sets" in pairs(argv, "--ro-bind-try")


def test_a_user_is_changed_to_within_the_sandbox(tmp_path: Path) -> None:
    policy = Policy(users=("nobody",))
    confined = made(tmp_path, task(sandbox="strict", run_as="nobody"), policy=policy, user=NOBODY)
    argv = confined.request["wrap"]
    assert "--unshare-user" not in argv
    assert pairs(argv, "--cap-add") == ["CAP_SETUID", "CAP_SETGID"]
    setpriv = argv[argv.index("/usr/bin/setpriv") :]
    ids = ["--reuid", "65534", "--regid", "65534", "--groups", "65534,7"]
    assert setpriv[1:-2] == [*ids, "--inh-caps=-all", "--no-new-privs", "--"]
    assert confined.user == NOBODY
    assert (confined.env["USER"], confined.env["HOME"]) == ("nobody", str(tmp_path / "work" / "r" / "w.3"))


@pytest.mark.parametrize(
    ("support", "users", "said"),
    [
        (V1, (), "does not let tasks run as 'nobody'; its task_users: none"),
        (V1, ("daemon",), "its task_users: daemon"),
        (replace(V1, root=False, user="me"), ("nobody",), "its runtime is me's, not root's"),
        (replace(V1, programs={}), ("nobody",), "has no setpriv"),
    ],
)
def test_users_that_are_not_to_be_had_are_refused(
    tmp_path: Path, support: Support, users: tuple[str, ...], said: str
) -> None:
    with pytest.raises(InvalidRequest, match=said):
        made(tmp_path, task(run_as="nobody"), support, Policy(users=users), NOBODY)


def test_the_own_user_needs_no_change(tmp_path: Path) -> None:
    me = replace(NOBODY, name="me")
    assert made(tmp_path, task(run_as="me"), replace(V1, root=False, user="me"), user=me).request["wrap"] == []


def test_a_user_who_cannot_reach_the_folder_is_told_so(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    with pytest.raises(InvalidRequest, match=r"'nobody' may not enter .* use a sandbox"):
        made(tmp_path, task(run_as="nobody"), policy=Policy(users=("nobody",)), user=NOBODY)


def test_a_node_demands_and_bounds(tmp_path: Path) -> None:
    policy = Policy("standard", {"time": 10}, {"memory": 1 << 30, "time": 60}, ("nobody", "daemon"))
    assert [level_of(task(sandbox=s), policy) for s in ("none", "standard", "strict")] == ["standard"] * 2 + ["strict"]
    assert [user_of(task(run_as=u), policy) for u in (None, "daemon")] == ["nobody", "daemon"]
    assert [user_of(task(run_as=u), Policy()) for u in (None, "daemon")] == [None, "daemon"]
    request = made(tmp_path, task(), policy=replace(policy, users=())).request
    assert request["sandboxed"]
    assert "--cpu=10:15" in request["wrap"]
    assert ["memory", "memory.limit_in_bytes", str(1 << 30)] in request["group"]["files"]
    with pytest.raises(InvalidRequest, match=r"limits.memory is 2 GiB; this node allows 1 GiB"):
        made(tmp_path, task(limits={"memory": 2 << 30}), policy=policy)


@pytest.mark.parametrize("folder", ["/usr/share/x", "/etc/x", "/tmp", "/", "/home", "/proc/1", "/run/x"])
def test_folders_that_are_not_a_tasks_own_are_refused(tmp_path: Path, folder: str) -> None:
    with pytest.raises(InvalidRequest, match="working_dir"):
        made(tmp_path, task(sandbox="standard", working_dir=folder))


def test_other_folders_of_wattle_are_refused_and_where_a_sandbox_is_demanded_those_not_allowed(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for folder in (data / "work" / "r" / "other.1", data / "logs", data):
        with pytest.raises(InvalidRequest, match="Wattle's own data folder"):
            made(data, task(sandbox="strict", working_dir=str(folder)))
    with pytest.raises(InvalidRequest, match="holds"):
        made(data, task(sandbox="strict", working_dir=str(tmp_path)))
    shared = tmp_path / "shared"
    assert pairs(made(data, task(sandbox="strict", working_dir=str(shared))).request["wrap"], "--bind") == [str(shared)]
    with pytest.raises(InvalidRequest, match="its sandbox_writable: none"):
        made(data, task(working_dir=str(shared)), policy=Policy("strict"))
    allowed = Policy("strict", writable=(tmp_path,))
    assert pairs(made(data, task(working_dir=str(shared)), policy=allowed).request["wrap"], "--bind") == [str(shared)]
    shared.symlink_to("/etc")
    with pytest.raises(InvalidRequest, match="is in /etc"):
        made(data, task(working_dir=str(shared)), policy=allowed)


def test_files_that_lead_out_of_the_own_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidRequest, match="output 'o' is /etc/x, which leads out"):
        made(tmp_path, task(sandbox="strict", outputs={"o": "/etc/x"}))
    own = tmp_path / "work" / "r" / "w.3"
    own.mkdir(parents=True)
    (own / "sub").symlink_to("/etc")
    with pytest.raises(InvalidRequest, match="leads out"):
        made(tmp_path, task(sandbox="strict", outputs={"o": "sub/o"}))
    with pytest.raises(InvalidRequest, match="leads out"):
        made(tmp_path, task(run_as="nobody", outputs={"o": "sub/o"}), policy=Policy(users=("nobody",)), user=NOBODY)


@pytest.mark.parametrize("name", ["A=1", "-x"])
def test_commands_that_env_would_misread_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidRequest, match="call it by another name"):
        made(tmp_path, task(sandbox="strict", argv=(name,)))


@pytest.mark.parametrize(
    "fields",
    [
        {"sandbox": "loose"},
        {"sandbox": ""},
        {"run_as": "a\0b"},
        {"run_as": ""},
        {"env": {"A B": ""}},
        {"secrets": {'A"': "a"}},
        {"limits": {"colour": 1.0}},
        {"limits": {"memory": float("nan")}},
        {"limits": {"time": -1.0}},
        {"limits": {"cpu": float("inf")}},
    ],
)
def test_what_no_document_asks_for_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        check_asked(task(**fields))
    check_asked(task(sandbox="strict", run_as="nobody", limits=ALL))


def test_a_folder_under_another_name_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    homes, home = tmp_path / "homes", tmp_path / "home"
    (homes / "w").mkdir(parents=True)
    home.symlink_to(homes)
    data, inside = tmp_path / "data", task(sandbox="strict", working_dir=str(homes / "w"))
    made(data, inside, policy=Policy("strict", writable=(home,)))  # what is allowed by a link
    monkeypatch.setattr("wattle.runtime.sandbox._SHARED", (str(home),))
    made(data, inside)
    with pytest.raises(InvalidRequest, match="a folder of the task's own"):
        made(data, task(sandbox="strict", working_dir=str(homes)))


@pytest.mark.parametrize(
    ("policy", "said"),
    [
        (Policy("strict"), "no sandbox: bwrap is not installed"),
        (Policy(default_limits={"memory": 1e9}), "limits on memory .* no prlimit"),
        (Policy(max_limits={"open_files": 10.0}), "limits on open_files .* no prlimit"),
        (Policy(max_limits={"processes": 10.0}), "limits on processes .* no control groups"),
        (Policy(default_limits={"cpu": 2.0}, max_limits={"cpu": 1.0}), "default_limits.cpu is more"),
        (Policy(users=("nobody",)), "no setpriv"),
        (Policy(users=("no-such-user",)), "no such user"),
    ],
)
def test_a_node_that_cannot_enforce_what_it_demands_does_not_start(policy: Policy, said: str) -> None:
    bare = replace(V1, groups={"cpu": "/cg/cpu"}, programs={}, no_sandbox="bwrap is not installed")
    with pytest.raises(SettingsError, match=said):
        check(policy, bare)
    check(Policy("strict", {"memory": 1e9, "cpu": 1.0}, {"cpu": 1.0, "processes": 9.0}, ("nobody",)), V1)


def test_what_a_node_says_of_itself() -> None:
    assert V1.confines == ("memory", "cpu", "processes", "sandbox", "run_as")
    assert BARE.confines == ()
