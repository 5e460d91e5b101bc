"""What the documents name is there: links, files, commands and options, make's targets, variables, codes, methods, fields, numbers."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import typer.main

from wattle import Client, TrioClient, errors
from wattle.bus import config, lanes, senders
from wattle.cli import logs, pairs, progress, running
from wattle.cli.app import app
from wattle.client import steps
from wattle.client.answers import Health, WorkerChange
from wattle.coordinator import agent as coordinator_agent
from wattle.coordinator import journal, long_polls
from wattle.core import ahead, lineup, numbering, replication
from wattle.core.model import RunStatus, TaskStatus, WorkerStatus
from wattle.core.placement import NodeStatus
from wattle.gateway import agent as gateway_agent
from wattle.gateway import duty, request, routes
from wattle.gateway import logs as gateway_logs
from wattle.peer import claiming, loop
from wattle.protocol import records
from wattle.protocol.records import AttemptView, NodeView, ResultView, RunView, UsageView, WorkerView, WorkflowView
from wattle.runtime import agent as runtime_agent
from wattle.runtime import launching, outcomes, output
from wattle.settings.agents import KINDS, AgentSettings, CoordinatorSettings, GatewaySettings
from wattle.store import base, copies

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text(encoding="utf-8")
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/**/*.md"))
}
SOURCES = sorted((ROOT / "wattle").rglob("*.py"))
NO_SETTINGS = frozenset(
    ["WATTLE_CONFIG", "WATTLE_CLUSTER", "WATTLE_CUTS", "WATTLE_WRITE_DOCS", "WATTLE_CONECT", "WATTLE_PARAM_X"]
)
"""Variables that are no settings, or only examples of a mistake. Those that tasks get are told apart by their beginnings."""


def page(name: str) -> str:
    return PAGES[f"docs/{name}.md"]


def section(text: str, title: str) -> str:
    return re.split(r"^#+ ", text.split(f"# {title}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]


def anchors(text: str) -> set[str]:
    """The names that GitHub gives headings."""
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    wrong = []
    for target in re.findall(r"\]\(([^)\s]+)\)", PAGES[name]):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        place = (ROOT / name).parent / path if path else ROOT / name
        if not place.exists() or (anchor and anchor not in anchors(place.read_text(encoding="utf-8"))):
            wrong.append(target)
    assert wrong == []


@pytest.mark.parametrize("name", PAGES)
def test_files_that_are_named_are_there(name: str) -> None:
    tops = "agents|benchmarks|config|docker|docs|examples|tests|wattle|zenoh-configs"
    within = "bus|cli|client|coordinator|core|document|gateway|peer|protocol|runtime|security|settings|store"
    wrong = []
    for text in re.findall(r"`([^`\n]+)`", PAGES[name]):
        if re.fullmatch(rf"(?:{tops})/[\w./*@-]+", text):
            found = any(ROOT.glob(text.rstrip("/")))
        elif re.fullmatch(rf"(?:{within})/\w[\w/]*\.py", text):
            found = (ROOT / "wattle" / text).exists()
        elif re.fullmatch(r"[a-z-]+\.json5", text):
            found = (ROOT / "zenoh-configs" / text).exists()
        else:
            continue
        if not found and text not in MADE and not text.startswith("wattle/default/"):  # a key
            wrong.append(text)
    assert wrong == []


MADE = frozenset({"docs/benchmarks.json", "docs/benchmarks.svg"})
"""Files that a command makes."""


# --- commands --------------------------------------------------------------------------------------------------------------


def texts_of_code(text: str) -> Iterator[str]:
    """Inline code, and each line of the blocks that are shell."""
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        if language in ("", "sh"):
            yield from block.replace("\\\n", " ").splitlines()
    yield from re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))


def calls_of_wattle(text: str) -> Iterator[list[str]]:
    """The words after ``wattle`` of each command within; placeholders and all."""
    for piece in re.split(r"[;&|]+|\$\(", text.split("  #")[0]):
        match = re.search(r"(?:^|[$ (/])(?<!--entrypoint )wattle ([a-z].*)", piece.strip())
        if match:
            yield match[1].rstrip(')"').split(" #")[0].split()


@pytest.mark.parametrize("name", PAGES)
def test_commands_that_are_shown_exist_with_their_options(name: str) -> None:
    group: Any = typer.main.get_command(app)
    wrong = []
    for code in texts_of_code(PAGES[name]):
        for words in calls_of_wattle(code):
            command = group
            rest = list(words)
            while hasattr(command, "commands") and rest:
                command = command.commands.get(rest.pop(0).strip(",."))
            known = (
                set()
                if command is None
                else {opt for one in command.params for opt in (*one.opts, *one.secondary_opts)}
            )
            given = {word.split("=")[0] for word in rest if re.match(r"--?[a-z]", word)}
            if command is None or not given <= known | {"--help"}:
                wrong.append(code)
    assert wrong == []


@pytest.mark.parametrize("file", sorted((ROOT / "zenoh-configs").glob("*.json5")), ids=lambda file: file.name)
def test_agents_start_with_a_zenoh_configuration_as_its_head_says(file: Path) -> None:
    head = file.read_text(encoding="utf-8").split("\n{")[0].replace("//", "")
    calls = [
        words for line in head.splitlines() for words in calls_of_wattle(line) if f"zenoh-configs/{file.name}" in words
    ]
    assert calls
    for words in calls:
        connect = tuple(words[at + 1] for at, word in enumerate(words) if word == "--connect")
        mode: Any = "router" if words[0] == "router" else None
        open_to_all = bool(config.open_ways(config.ZenohOptions(mode=mode, connect=connect, config_file=file)))
        assert ("--insecure" in words) == open_to_all


@pytest.mark.parametrize("name", PAGES)
def test_targets_of_make_exist(name: str) -> None:
    known = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {
        target
        for code in texts_of_code(PAGES[name])
        for target in re.findall(r"(?:^|&& |; )make ([a-z]+)", code.strip())
    }
    assert named <= known


@pytest.mark.parametrize("name", PAGES)
def test_variables_are_settings(name: str) -> None:
    settings = {f"WATTLE_{setting.upper()}" for kind in KINDS.values() for setting in kind.setting_names()}
    of_tasks = r"WATTLE_(RUN|WORKER|ATTEMPT|WORKFLOW|TASK|SPAWNER|INPUT|OUTPUT|PARAM)(_\w*)?"
    named = set(re.findall(r"\bWATTLE_[A-Z_]+\b", PAGES[name]))
    assert {one for one in named - settings - NO_SETTINGS if not re.fullmatch(of_tasks, one)} == set()


# --- codes, and what people are told ---------------------------------------------------------------------------------------


def rows(text: str) -> list[list[str]]:
    """The cells of a section's tables, without their headings."""
    found = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
        for line in text.splitlines()
        if line.startswith("|")
    ]
    return [row for number, row in enumerate(found) if not set("".join(row)) <= set("-") and number != 0]


def codes_in_the_code() -> set[str]:
    given = (re.findall(r"""code="([A-Z_]+)\"""", source.read_text(encoding="utf-8")) for source in SOURCES)
    return {code for codes in given for code in codes} | set(errors._BY_CODE) | {"INTERNAL"}


def test_every_code_says_what_to_do_and_has_its_exit_status() -> None:
    from wattle.cli.app import exit_status

    told = {
        code: int(row[1])
        for row in rows(section(page("troubleshooting"), "Errors by code"))
        for code in re.findall(r"`([A-Z_]+)`", row[0])
    }
    told["NOT_HERE"] = 2  # which only peers tell each other
    assert told == {code: exit_status(errors.error_from_dict({"code": code})) for code in codes_in_the_code()}


def test_the_tree_of_errors_names_every_code() -> None:
    assert set(re.findall(r"\b[A-Z]+(?:_[A-Z]+)*\b", errors.__doc__ or "")) - {"JSON"} >= codes_in_the_code()


@pytest.mark.parametrize("name", PAGES)
def test_codes_that_are_named_exist(name: str) -> None:
    kinds = "INVALID|NO|RUN|STORE|TOKEN|NAME|NODE|OWNER|KEY|WORKFLOW|WORKER|LOG|MEMBER"
    named = set(re.findall(rf"`((?:{kinds})_[A-Z_]+)`", PAGES[name]))
    assert named <= codes_in_the_code() | {"NO_COLOR"}


def test_every_store_code_has_its_row() -> None:
    told = {row[0].strip("`") for row in rows(section(page("troubleshooting"), "A store cannot be used"))}
    assert told == {code for code in codes_in_the_code() if code.startswith("STORE_")}


def test_every_line_of_doctor_is_explained() -> None:
    source = "".join((ROOT / "wattle" / "cli" / name).read_text(encoding="utf-8") for name in ("doctor.py", "pairs.py"))
    lines = set(re.findall(r"""Finding\(\s*"([^"]+)\"""", source)) | set(
        re.findall(r"""what(?:, path)? = "([^"]+)\"""", source)
    )
    lines |= {"gateways", "coordinators", "runtimes", "peers' protocols", "peers' versions"}  # made of names
    told = {
        line
        for row in rows(section(page("troubleshooting"), "What doctor finds"))
        for line in re.findall(r"`([^`]+)`", row[0])
    }
    assert told == lines


def texts_in(source: Path) -> list[str]:
    """The texts in a module."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    return [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)]


def answers_of(source: Path, function: str) -> list[str]:
    """How the texts begin that a function returns."""
    tree = ast.parse(source.read_text(encoding="utf-8"))
    (found,) = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef) and node.name == function)
    values = [node.value for node in ast.walk(found) if isinstance(node, ast.Return)]
    values = [value.left if isinstance(value, ast.BinOp) else value for value in values]
    values = [value.values[0] if isinstance(value, ast.JoinedStr) else value for value in values]
    return [value.value for value in values if isinstance(value, ast.Constant) and isinstance(value.value, str)]


def told_of(title: str) -> list[str]:
    """What a table of troubleshooting quotes of Wattle's own words."""
    quoted = (re.findall(r"`([^`]+)`", row[0]) for row in rows(section(page("troubleshooting"), title)))
    return [text.removesuffix(" N") for texts in quoted for text in texts]


def test_every_reason_for_waiting_is_explained() -> None:
    reasons = [reason.strip(" :") for reason in answers_of(ROOT / "wattle/core/waiting.py", "why_waiting")]
    told = set(told_of("A worker does not start")) - {"created"}
    assert len(reasons) > 4
    assert {next((one for one in told if reason.startswith(one)), reason) for reason in reasons} == told


def test_what_failed_workers_are_quoted_to_say_is_said() -> None:
    said = "\n".join(text for source in SOURCES for text in texts_in(source))
    assert [text for text in told_of("A worker fails") if text not in ("lost",) and text not in said] == []


# --- methods and fields ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [Client, TrioClient])
def test_every_method_of_the_clients_is_documented_and_no_other(kind: type[Any]) -> None:
    table = re.findall(r"^\| (`\w+\(.*?) \|.*$", page("client"), re.MULTILINE)
    told = {name for row in table for name in re.findall(r"`(\w+)\(", row)} | {"log_chunks"}
    assert "`log_chunks` gives" in page("client")
    assert told == {name for name in vars(kind) if not name.startswith("_")} - {"close"}


@pytest.mark.parametrize(
    ("what", "kind"),
    [
        ("A **run**", RunView),
        ("A **worker**", WorkerView),
        ("An **attempt**", AttemptView),
        ("A **workflow**", WorkflowView),
        ("A **node**", NodeView),
    ],
)
def test_the_fields_of_what_is_shown_are_documented(what: str, kind: type[Any]) -> None:
    text = section(page("api"), "Shapes")
    text = re.split(r"\bAn? \*\*", text.split(f"{what}: ")[1])[0].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", text))
    parts = {ResultView, UsageView} if kind in (WorkerView, AttemptView) else set()
    known = {field.name for shape in (kind, *parts) for field in fields(shape)}
    values = {str(value) for statuses in (RunStatus, WorkerStatus, TaskStatus, NodeStatus) for value in statuses}
    assert {field.name for field in fields(kind)} <= named
    assert named - known <= values


def test_the_statuses_that_are_listed_are_those_there_are() -> None:
    text = section(page("api"), "Shapes")
    for statuses in (RunStatus, WorkerStatus, TaskStatus, NodeStatus):
        assert f"({' '.join(f'`{status}`' for status in statuses)})" in re.sub(r"\s+", " ", text)


def test_the_fields_of_a_workers_event_are_documented() -> None:
    (row,) = (row for row in rows(section(page("api"), "Events")) if row[0] == "`event/runs/<run>/workers/<worker>`")
    assert set(re.findall(r"`(\w+)`", row[2])) == {field.name for field in fields(WorkerChange)}


def test_the_fields_of_health_are_documented() -> None:
    (row,) = re.findall(r"^\| `health` \| get \| `(\{.*?\})`;", page("api"), re.MULTILINE)
    assert {field.name for field in fields(Health)} <= set(re.findall(r'"(\w+)"', row))


# --- numbers ---------------------------------------------------------------------------------------------------------------


def numbers() -> list[tuple[str, str]]:
    """Pages, and what they have to say of numbers that stand in the code."""
    mib, kib = 2**20, 2**10
    client, gateway, coordinator = (
        steps.Policy(clock=float),
        GatewaySettings.model_fields,
        CoordinatorSettings.model_fields,
    )
    return [
        ("api", f"`limit` ({gateway_logs.MAX_LOG // mib} MiB)"),
        ("api", f"{routes.GRACE:g} s to appear"),
        ("api", f"for submissions of up to {records.WAITING_SUBMISSION // kib} KiB"),
        ("client", f"when the document is small ({records.WAITING_SUBMISSION // kib} KiB)"),
        ("api", f"answered at most {request.LATE:g} s after that ({gateway_agent.REQUEST_TIMEOUT:g} s after it came"),
        ("api", f"at most {long_polls.MAX_WAITING:,} requests that wait"),
        ("api", f"`lease` ({AgentSettings.model_fields['lease'].default:g} s unless set)"),
        ("architecture", f"a process start up to {loop.LINGER * 1e3:g} ms"),
        ("architecture", f"busy node has done up to {coordinator_agent.COLLECTED * 1e3:g} ms"),
        ("architecture", f"asked every {coordinator_agent.FEED_CHECK:g} s"),
        ("architecture", f"once in {coordinator_agent.FEED_TURNS} times"),
        ("architecture", f"told up to {outcomes.LINGER * 1e3:g} ms late"),
        ("architecture", f"{runtime_agent.LINE_SECONDS * 1e3:g} ms of work by the node's running mean ({lineup.LINE_MOST} tasks at most)"),
        ("architecture", f"up to {ahead.AHEAD_MOST} to a node"),
        ("architecture", f"each further one {duty.TURN:g} s later"),
        ("cli", f"workers (up to {logs.MOST_WORKERS})"),
        ("cli", f"the last {logs._MAX_TAIL // mib} MiB"),
        ("cli", f"more than {progress.EACH_WORKER:,} workers"),
        ("cli", f"up to {running._SHOWN_BYTES // kib} KiB each; of more than {running._SHOWN_WORKERS} such workers"),
        ("client", f"`timeout` seconds ({client.timeout:g})"),
        ("client", f"`patience` seconds ({client.patience:g}) once a gateway"),
        ("client", f"stay away for {client.poll:g} seconds"),
        ("operations", f"out of sight after its `lease` ({AgentSettings.model_fields['lease'].default:g} s;"),
        ("operations", f"`max_payload` of the gateway, {gateway['max_payload'].default // mib} MiB"),
        ("operations", f"`max_waiting`, {gateway['max_waiting'].default:,}"),
        ("operations", f"`max_runs`, {coordinator['max_runs'].default:,}"),
        ("operations", f"at a coordinator | {long_polls.MAX_WAITING:,} |"),
        ("operations", f"per node | {output.MAX_WAITING:,} |"),
        ("operations", f"at a peer | {lanes.QUERIES:,}, and {lanes.WAITING_BYTES // mib} MiB of payloads"),
        ("operations", f"per subscription | {lanes.SAMPLES:,}, and {lanes.WAITING_BYTES // mib} MiB of payloads"),
        ("operations", f"one of {lanes.COUNTED // kib} KiB or more"),
        ("operations", f"that wait to be sent | {senders.UNSENT // mib} MiB"),
        ("operations", f"It waits {claiming.NAME_WAIT:g} s"),
        ("operations", f"({claiming.SILENT_WAIT + claiming.NAME_WAIT:g} s at least"),
        ("operations", f"The spawner ends at most {launching.LINGER:g} s after its last task"),
        ("performance", f"the last {journal.REMEMBERED_MOST:,} rows"),
        ("replication", f"collected for {replication.LINGER * 1e3:g} ms"),
        ("replication", f"({numbering.ATTEMPTS_PER_EPOCH:,} per epoch)"),
        ("replication", f"removed after {copies.PRUNED_REMEMBERED / 86400:g} days"),
        ("replication", f"every {request.MOMENT:g} s for up to {gateway_agent.REQUEST_TIMEOUT:g} s"),
        ("troubleshooting", f"not used again for {copies.PRUNED_REMEMBERED / 86400:g} days"),
        ("troubleshooting", f"up to {base.CHECKED_MOST // mib} MiB is checked as a whole"),
        ("troubleshooting", f"clocks more than {pairs.CLOCK_TOLERANCE:g} s apart"),
        ("zenoh", f"agents `--lease` ({AgentSettings.model_fields['lease'].default:g} s)"),
        ("zenoh", f"clients and the files 1 s; {config.KEEP_ALIVES_PER_LEASE} |"),
        ("zenoh", f"`transport/unicast/open_timeout` | {config.OPEN_TIMEOUT_MS / 1000:g} s"),
        ("zenoh", f"`scouting/delay` | {config.SCOUTING_DELAY_MS} ms"),
        ("zenoh", f"has at most {config.UNIX_PATH_MAX} bytes"),
    ]  # fmt: skip


@pytest.mark.parametrize(("name", "text"), numbers())
def test_numbers_are_those_of_the_code(name: str, text: str) -> None:
    assert text.lower() in re.sub(r"\s+", " ", page(name)).lower()
