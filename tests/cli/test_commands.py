"""Every command in this process, against a fake gateway."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer import Context
from typer.main import get_command
from typer.testing import Result

from tests.client.fake_gateway import FakeGateway, node, workflow
from wattle import __version__
from wattle.cli import agents, app

Wattle = Callable[..., Result]
Write = Callable[..., Path]


def test_help_and_version(wattle: Wattle) -> None:
    assert wattle("--version").stdout == f"wattle {__version__}\n"
    shown = wattle("--help")
    assert shown.exit_code == 0
    assert "doctor" in shown.stdout
    assert wattle("nonsense").exit_code == 2


@pytest.mark.parametrize("group", ["", "agent", "audit", "cluster", "import", "store", "token"])
def test_help_says_in_whole_sentences_what_the_commands_do(wattle: Wattle, group: str) -> None:
    """The first sentence of each stands in a line of 80, which would be cut off."""
    listed = wattle(*group.split(), "--help").stdout.partition("Commands:")[2]
    assert listed
    assert "..." not in listed


@pytest.mark.parametrize(
    ("asked", "made"),
    [("run", {"run"}), ("up", {"up"}), ("agent", None), ("", None), ("--help", None), ("nonsense", None)],
)
def test_a_command_that_is_asked_for_is_made_alone(
    asked: str, made: set[str] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app.app, "registered_commands", list(app.app.registered_commands))
    monkeypatch.setattr(app.app, "registered_groups", list(app.app.registered_groups))
    everything = set(get_command(app.app).list_commands(Context(get_command(app.app))))  # type: ignore[attr-defined]
    app.leave_out_all_but(asked)
    left = set(get_command(app.app).list_commands(Context(get_command(app.app))))  # type: ignore[attr-defined]
    assert left == (everything if made is None else made)


def test_run_on_a_network_in_reach(wattle: Wattle, gateway: FakeGateway, document: Write) -> None:
    def finish(run: str) -> None:
        gateway.set_worker(run, "a", "running")
        gateway.append_log(run, "a", b"42\n")
        gateway.finish(run)

    gateway.on_submit = finish
    done = wattle("run", document(params={"p": None}), "--param", "p=x=y")
    assert done.exit_code == 0
    assert done.stdout.endswith("succeeded: 1 worker in 1.5 s\n42\n")
    assert next(iter(gateway.runs.values()))["params"] == {"p": "x=y"}


def test_run_quietly_and_as_json(wattle: Wattle, gateway: FakeGateway, document: Write) -> None:
    gateway.on_submit = gateway.finish
    assert wattle("run", document(), "--quiet").stdout == ""
    lines = [json.loads(line) for line in wattle("run", document(), "--json").stdout.splitlines()]
    assert lines[-1]["result"]["status"] == "succeeded"
    assert all(next(iter(line)) in ("run", "worker", "result") for line in lines)


def test_params_come_from_a_file_and_flags_win(
    wattle: Wattle, gateway: FakeGateway, document: Write, tmp_path: Path
) -> None:
    (tmp_path / "p.yaml").write_text("p: 1\nq: two\n")
    file = document(params={"p": 0, "q": ""})
    done = wattle("submit", file, "--params-file", tmp_path / "p.yaml", "--param", "q=three")
    assert gateway.runs[done.stdout.strip()]["params"] == {"p": 1, "q": "three"}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--param", "p"], "NAME=VALUE"),
        (["--param", "zz=1"], "no parameter 'zz'"),
        (["--params-file", "missing.yaml"], "missing.yaml"),
    ],
)
def test_bad_parameters_exit_2(wattle: Wattle, document: Write, options: list[str], message: str) -> None:
    done = wattle("submit", document(), *options)
    assert done.exit_code == 2
    assert message in done.stderr


def test_submit_prints_the_id_alone(wattle: Wattle, gateway: FakeGateway, document: Write) -> None:
    done = wattle("submit", document(), "--run", "mine")
    assert done.stdout == "mine\n"
    assert wattle("submit", "-", stdin=document().read_text()).stdout.startswith("flow-")
    assert wattle("submit", document("missing").parent / "x").exit_code == 2


def test_watch_exits_as_the_run_ends(wattle: Wattle, gateway: FakeGateway) -> None:
    for status, code in (("succeeded", 0), ("failed", 1), ("cancelled", 4)):
        gateway.add_run(status, "a")
        gateway.finish(status, status)
        done = wattle("watch", status)
        assert done.exit_code == code
        assert f"run {status} {status}: " in done.stdout.splitlines()[-1]


def test_watch_gives_up_after_its_timeout_and_leaves_the_run_alone(wattle: Wattle, gateway: FakeGateway) -> None:
    gateway.add_run("r", "a")
    done = wattle("watch", "r", "--timeout", "0.05")
    assert done.exit_code == 3
    assert "run r is not final after 0.05 s" in done.stderr
    assert gateway.runs["r"]["status"] == "running"


def test_a_large_run_is_followed_by_its_counts(wattle: Wattle, gateway: FakeGateway) -> None:
    gateway.add_run("r", *(f"w{number}" for number in range(2001)))
    gateway.set_worker("r", "w7", "running")
    gateway.append_log("r", "w7", b"boom\n", stream="stderr")
    gateway.set_worker("r", "w7", "failed", error_message="exit status 3")
    gateway.set_run("r", "failed")
    done = wattle("watch", "r")
    assert done.exit_code == 1
    assert "w7 failed on n1: exit status 3\n" in done.stdout
    assert "| boom\n" in done.stdout
    assert not any(path == "runs/r/workers" and params.get("limit") == "1000" for path, params, _ in gateway.asked)


def test_status_of_a_run_puts_failures_first(wattle: Wattle, gateway: FakeGateway) -> None:
    gateway.add_run("r", "a", "b", "c")
    gateway.set_worker("r", "a", "succeeded")
    gateway.set_worker("r", "c", "running")
    gateway.set_worker("r", "c", "failed", error_message="exit status 3\nand more")
    rows = [line.split("\t") for line in wattle("status", "r").stdout.splitlines()]
    assert ["run", "r"] in rows
    assert rows[-3] == ["c", "failed", "n1", "1", "1.5 s", "exit status 3 and more"]
    assert [row[0] for row in rows[-3:]] == ["c", "b", "a"]
    both = json.loads(wattle("status", "r", "--json").stdout)
    assert [worker["name"] for worker in both["workers"]] == ["c", "b", "a"]


def test_overview(wattle: Wattle, gateway: FakeGateway) -> None:
    gateway.nodes["n1"] = node("n1")
    gateway.add_run("going", "a")
    gateway.add_run("done", "a", status="succeeded")
    shown = wattle("status").stdout
    assert "going\trunning" in shown
    assert "done" not in shown
    assert "n1\tready\t2\t1" in shown
    assert [run["id"] for run in json.loads(wattle("status", "--json").stdout)["runs"]] == ["going"]


def test_runs(wattle: Wattle, gateway: FakeGateway) -> None:
    assert json.loads(wattle("runs", "--json").stdout) == []
    for number in range(3):
        gateway.add_run(f"r{number}", "a")
    assert [run["id"] for run in json.loads(wattle("runs", "--json", "--limit", "2").stdout)] == ["r2", "r1"]
    gateway.page_limit = 1
    assert len(wattle("runs", "--all").stdout.splitlines()) == 4
    wattle("runs", "--workflow", "w", "--status", "failed")
    assert gateway.asked[-1][1] == {"workflow": "w", "status": "failed"}


def test_logs_of_one_worker_are_its_bytes(wattle: Wattle, gateway: FakeGateway) -> None:
    gateway.add_run("r", "a")
    gateway.set_worker("r", "a", "running")
    gateway.append_log("r", "a", b"1\n2\n\xff3\n")
    gateway.append_log("r", "a", b"oops", stream="stderr")
    gateway.set_worker("r", "a", "succeeded")
    assert wattle("logs", "r", "a").stdout_bytes == b"1\n2\n\xff3\n"
    assert wattle("logs", "r", "a", "--tail", "2").stdout_bytes == b"2\n\xff3\n"
    assert wattle("logs", "r", "a", "--tail", "0").stdout_bytes == b""
    assert wattle("logs", "r", "a", "--stderr", "-f").stdout_bytes == b"oops"
    assert wattle("logs", "r", "a", "--attempt", "2").exit_code == 2
    assert wattle("logs", "r", "a", "--stderr", "--stdout").exit_code == 2


@pytest.mark.parametrize("options", [[], ["-f"]])
def test_logs_of_all_workers_carry_their_names(wattle: Wattle, gateway: FakeGateway, options: list[str]) -> None:
    gateway.add_run("r", "a", "long", "silent")
    for name in ("a", "long"):
        gateway.set_worker("r", name, "running")
        gateway.append_log("r", name, b"one\ntwo")
        gateway.set_worker("r", name, "succeeded")
    gateway.set_worker("r", "silent", "skipped")
    lines = wattle("logs", "r", *options).stdout.splitlines()
    assert sorted(lines) == ["a      | one", "a      | two", "long   | one", "long   | two"]


def test_logs_of_too_many_workers_ask_for_one(wattle: Wattle, gateway: FakeGateway) -> None:
    gateway.add_run("r", *(f"w{number}" for number in range(51)))
    done = wattle("logs", "r")
    assert done.exit_code == 2
    assert "wattle logs r w0" in done.stderr


def test_status_shows_no_node_for_a_worker_that_was_skipped_before_it_began(
    wattle: Wattle, gateway: FakeGateway
) -> None:
    gateway.add_run("r", "a")
    handed_back = {"attempt": 1, "node": "n1", "status": "returned", "assigned_at": "2026-01-01T00:00:00Z"}
    gateway.set_worker("r", "a", "skipped", node="n1", attempts=[handed_back], started_at=None)
    assert "a\tskipped\t-\t0\t-\t-" in wattle("status", "r").stdout.splitlines()


def test_cancel_and_retry(wattle: Wattle, gateway: FakeGateway) -> None:
    gateway.add_run("r", "a")
    assert wattle("retry", "r").exit_code == 2
    assert wattle("cancel", "r", "--wait").stdout == "run r is cancelled\n"
    assert wattle("cancel", "r").exit_code == 2
    assert wattle("retry", "r").stdout.startswith("run r is going on")
    assert json.loads(wattle("cancel", "r", "--json").stdout)["status"] == "cancelled"


def test_prune_wants_runs_or_an_age(wattle: Wattle, gateway: FakeGateway) -> None:
    for words in ([], ["r", "--older-than", "7d"], ["--older-than", "soon"], ["--older-than", "-1"]):
        assert wattle("prune", *words).exit_code == 2


def test_workflows(wattle: Wattle, gateway: FakeGateway) -> None:
    gateway.workflows["flow"] = workflow("flow")
    assert json.loads(wattle("workflows", "--json").stdout)[0]["name"] == "flow"
    assert wattle("start", "flow").stdout.startswith("flow-")
    assert wattle("delete", "flow").stdout == "workflow flow is deleted\n"
    assert wattle("delete", "flow").exit_code == 2


def test_nodes(wattle: Wattle, gateway: FakeGateway) -> None:
    gateway.nodes["n1"] = node("n1")
    assert wattle("nodes").stdout.splitlines()[1].startswith("n1\tready\t2\t1\t0")
    assert wattle("drain", "n1").stdout == "node n1 is draining: 1 running, 0 queued\n"
    assert json.loads(wattle("resume", "n1", "--json").stdout)["status"] == "ready"
    assert wattle("drain", "n2").exit_code == 2


def test_get_and_put(wattle: Wattle, gateway: FakeGateway, tmp_path: Path) -> None:
    gateway.add_run("r", "a")
    assert json.loads(wattle("get", "runs/r").stdout)["id"] == "r"
    assert json.loads(wattle("get", "wattle/default/api/v1/health").stdout)["status"] == "ok"
    assert wattle("get", "nothing").exit_code == 2
    assert wattle("get", "wattle/default/nobody").exit_code == 3
    (tmp_path / "w.json").write_text("{}")
    wattle("put", "workflows/w", f"@{tmp_path}/w.json")
    assert gateway.asked[-1] == ("workflows/w", {}, b"{}")
    refused = wattle("put", "runs/x", "{}")
    assert refused.exit_code == 2
    assert "no good" in refused.stderr


def test_errors_as_json(wattle: Wattle, gateway: FakeGateway) -> None:
    done = wattle("status", "missing", "--json")
    assert done.exit_code == 2
    assert json.loads(done.stdout)["error"]["code"] == "RUN_NOT_FOUND"


def test_no_network_exits_3_and_says_what_to_do(wattle: Wattle, data: Path) -> None:
    done = wattle("runs", "--data", data)
    assert done.exit_code == 3
    assert str(data) in done.stderr


def test_doctor(wattle: Wattle, gateway: FakeGateway, data: Path) -> None:
    done = wattle("doctor")
    assert done.exit_code == 0, done.stdout
    assert "ok   runtimes: 1 in sight" in done.stdout
    data.chmod(0o755)
    done = wattle("doctor", "--json")
    data.chmod(0o700)
    assert done.exit_code == 1
    assert [finding["fix"] for finding in json.loads(done.stdout) if not finding["ok"]] == [f"chmod 700 {data}"]


def test_doctor_without_a_network(wattle: Wattle, data: Path) -> None:
    done = wattle("doctor", "--data", data)
    assert done.exit_code == 1
    assert "fix: wattle up" in done.stdout


def test_validate(wattle: Wattle, document: Write, tmp_path: Path) -> None:
    assert wattle("validate", document()).stdout == "ok: 1 worker, 1 level\n"
    (tmp_path / "bad.yaml").write_text("name: x\nworkers:\n- {name: a, command: t, needs: [b]}\n- {name: a}\n")
    done = wattle("validate", tmp_path / "bad.yaml")
    assert done.exit_code == 2
    assert done.stderr.count(f"{tmp_path}/bad.yaml:") >= 2


def test_plan(wattle: Wattle, document: Write) -> None:
    workers = [
        {"name": name, "command": "true", "needs": needs} for name, needs in (("a", []), ("b", []), ("c", ["a"]))
    ]
    file = document(workers=workers)
    shown = wattle("plan", file).stdout
    assert "  1: a, b\n" in shown
    assert "critical path (2): a -> c\n" in shown
    assert json.loads(wattle("plan", file, "--json").stdout)["levels"] == [["a", "b"], ["c"]]


def test_schema(wattle: Wattle) -> None:
    assert "workers" in json.loads(wattle("schema").stdout)["properties"]


def test_import_reports_what_is_no_instance(wattle: Wattle, tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("{}")
    assert wattle("import", "wfformat", tmp_path / "x.json").exit_code == 2
    assert wattle("import", "wfformat", tmp_path / "missing.json").exit_code == 2


def test_agents_take_paths_and_refuse_what_is_neither_file_nor_name(
    wattle: Wattle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "mine.py"
    program.write_text("import sys\nif __name__ == '__main__':\n    print('args', sys.argv[1:])\n")
    assert wattle("agent", "run", program, "--x", "1").stdout == "args ['--x', '1']\n"
    done = wattle("agent", "run", "nonsense")
    assert done.exit_code == 2
    assert "coordinator" in done.stderr


def test_settings_that_are_wrong_exit_2(wattle: Wattle, data: Path) -> None:
    done = wattle("runtime", "--data", data, "--slots", "0")
    assert done.exit_code == 2
    assert "slots" in done.stderr


@pytest.mark.parametrize(
    ("endpoints", "use"),
    [
        (["unixsock-stream//d/wattle.sock", "tls/0.0.0.0:7447"], "wattle run FILE --data d, wattle status --data d;"),
        (["tcp/localhost:7447"], "wattle status --connect tcp/localhost:7447;"),
        ([], "wattle status --connect ENDPOINT;"),
    ],
)
def test_up_says_how_it_is_used_from_another_terminal(
    endpoints: list[str], use: str, capsys: pytest.CaptureFixture[str]
) -> None:
    agents._say_up(endpoints, Path("d"), "unixsock-stream//d/wattle.sock" in endpoints)
    assert use in capsys.readouterr().out
