"""Commands about runs: run, submit, watch, status, runs, logs, cancel, retry, prune."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from wattle.cli import options as o
from wattle.cli.output import Column, counted, duration, local_time, output_for, print_json_line

if TYPE_CHECKING:
    from wattle.client.blocking import Client
    from wattle.protocol.records import RunView, WorkerView

_FAILED_FIRST = {"failed": 0, "running": 1, "ready": 2, "cancelled": 3, "skipped": 4, "created": 5, "succeeded": 6}


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (run, submit, watch, status, runs, logs, cancel, retry, prune):
        app.command()(command)


def run(
    file: o.File,
    param: o.Param = None,
    params_file: o.ParamsFile = None,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    timeout: o.Timeout = None,
    json: o.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what goes wrong.")] = False,
) -> None:
    """Run a document to its end. It runs on the network in reach, or on one that is started and stopped with it.

    Exit status: 0 succeeded, 1 failed, 2 invalid input, 3 no network or timed out, 4 cancelled. Ctrl-C cancels the run.
    """
    from wattle.cli.running import Job, execute, parse_params

    params = parse_params(param, params_file)
    raise typer.Exit(execute(Job(file, params, connect, data, namespace, bundle, timeout, json, quiet)))


def submit(
    file: o.File,
    param: o.Param = None,
    params_file: o.ParamsFile = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="ID", help="The run's id; submitting it again does nothing.")
    ] = None,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """Submit a document and print the run's id."""
    from wattle.cli.running import check, parse_params, read_document

    params = parse_params(param, params_file)
    text = read_document(file)
    check(text, file, params)
    with o.open_client(connect, data, namespace, bundle) as client:
        view = client.submit(text, params, run)
    _print_id(view, json)


def watch(
    run: o.Run,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    timeout: o.Timeout = None,
    json: o.Json = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Say only what goes wrong.")] = False,
) -> None:
    """Show a run's progress until it is final. The exit status is as that of run; Ctrl-C leaves the run alone."""
    from wattle.cli.progress import display_for, follow
    from wattle.cli.running import EXIT, timed

    with o.open_client(connect, data, namespace, bundle) as client:
        first = client.run(run)
        with timed(timeout, f"run {run} is not final"), display_for(json, quiet) as display:
            last = follow(client, first, display)
    raise typer.Exit(EXIT.get(last.status, 1))


def status(
    run: Annotated[
        str | None, typer.Argument(metavar="[RUN]", help="A run's id.", autocompletion=o.complete_run)
    ] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many workers to list.")] = 200,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """Show a run and its workers, or all that is going on. Failed workers come first; without RUN: the nodes, and the runs that go on."""
    with o.open_reader(connect, data, namespace, bundle) as client:
        if run is None:
            _overview(client, json)
        else:
            _run_status(client, run, limit, json)


def _overview(client: Client, json: bool) -> None:
    from wattle.cli.nodes import NODE_COLUMNS
    from wattle.protocol.records import as_json

    health, nodes = client.health(), client.nodes()
    active = [*islice(client.runs(status="running"), 100), *islice(client.runs(status="created"), 100)]
    if json:
        print_json_line(
            {
                "health": as_json(health),
                "nodes": [as_json(node) for node in nodes],
                "runs": [as_json(r) for r in active],
            }
        )
        return
    output = output_for(json)
    output.record(health, [("network", health.status), ("namespace", health.namespace), ("peers", len(health.peers))])
    print()
    output.listing(nodes, NODE_COLUMNS, "no nodes")
    print()
    output.listing(active, RUN_COLUMNS, "no runs going on")


def _run_status(client: Client, run: str, limit: int, json: bool) -> None:
    from wattle.protocol.records import as_json

    view = client.run(run)
    found = list(islice(client.workers(run, "failed"), limit))
    seen = {worker.name for worker in found}
    found += [worker for worker in islice(client.workers(run), limit) if worker.name not in seen][: limit - len(found)]
    workers = sorted(found, key=lambda worker: _FAILED_FIRST.get(worker.status, 9))
    if json:
        print_json_line({"run": as_json(view), "workers": [as_json(worker) for worker in workers]})
        return
    output = output_for(json)
    output.record(view, _run_fields(view))
    print()
    output.listing(workers, WORKER_COLUMNS, "no workers")
    if view.workers > len(workers):
        typer.echo(f"{view.workers - len(workers)} more; see --limit", err=True)


def _run_fields(view: RunView) -> list[tuple[str, object]]:
    return [
        ("run", view.id),
        ("workflow", view.workflow),
        ("status", view.status),
        ("error", view.error_message),
        ("workers", counted(view.counts)),
        ("params", view.params or None),
        ("created", local_time(view.created_at)),
        ("started", local_time(view.started_at)),
        ("completed", local_time(view.completed_at)),
        ("took", duration(view.started_at, view.completed_at)),
        ("owner", view.owner),
    ]


def runs(
    workflow: Annotated[
        str | None, typer.Option("--workflow", help="Only runs of this workflow.", autocompletion=o.complete_workflow)
    ] = None,
    status: Annotated[str | None, typer.Option("--status", help="Only runs with this status.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many to list.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List all of them.")] = False,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """List runs, newest first."""
    with o.open_reader(connect, data, namespace, bundle) as client:
        found = client.runs(workflow, status)
        output_for(json).listing(found if everything else islice(found, limit), RUN_COLUMNS, "no runs")


def logs(
    run: o.Run,
    worker: o.Worker = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the worker is final.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Its standard error.")] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="Its standard output: the default.")] = False,
    attempt: Annotated[int | None, typer.Option("--attempt", min=1, help="This attempt instead of the newest.")] = None,
    tail: Annotated[int | None, typer.Option("--tail", min=0, metavar="N", help="Only the last N lines.")] = None,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
) -> None:
    """Print a worker's output; without WORKER that of all. Each line of all has its worker's name before it."""
    from wattle.cli.logs import Selection, show_all, show_one
    from wattle.errors import InvalidRequest

    if stderr and stdout:
        raise InvalidRequest("--stderr and --stdout exclude each other")
    selection = Selection(run, "stderr" if stderr else "stdout", follow, attempt, tail)
    with o.open_reader(connect, data, namespace, bundle) as client:
        if worker is not None:
            show_one(client, selection, worker)
        else:
            show_all(client, selection)


def cancel(
    run: o.Run,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until the run is final.")] = False,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """Cancel a run. Its running tasks are ended, the rest is not started."""
    with o.open_client(connect, data, namespace, bundle) as client:
        view = client.cancel(run)
        _print_status(client.wait(run) if wait else view, json, "is being cancelled")


def retry(
    run: o.Run,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """Run again what did not succeed in a final run. What succeeded stays."""
    with o.open_client(connect, data, namespace, bundle) as client:
        _print_status(client.retry(run), json, "is going on; wattle watch shows it")


def prune(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Runs' ids.", autocompletion=o.complete_run)
    ] = None,
    older_than: Annotated[
        str | None, typer.Option("--older-than", metavar="TIME", help="All that ended so long ago: 7d, 12h, 0.")
    ] = None,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """Remove final runs for good. Their logs and private folders go with them, on all nodes."""
    from wattle.errors import InvalidRequest

    if bool(runs) == (older_than is not None):
        raise InvalidRequest("name runs, or give --older-than: one of the two")
    age = None if older_than is None else o.seconds("--older-than", older_than)
    with o.open_client(connect, data, namespace, bundle) as client:
        pruned = client.prune(runs or None, age)
    if json:
        print_json_line({"runs": pruned})
    else:
        for run in pruned:
            print(run)


def _print_id(view: RunView, json: bool) -> None:
    if json:
        output_for(True).record(view, [])
    else:
        print(view.id)


def _print_status(view: RunView, json: bool, otherwise: str) -> None:
    if json:
        output_for(True).record(view, [])
    else:
        print(f"run {view.id} {f'is {view.status}' if view.final else otherwise}")


def _exit(worker: WorkerView) -> str | None:
    """What a ready worker waits for; else how the newest attempt ended, and why."""
    if worker.waiting_for:
        return worker.waiting_for if worker.error_message is None else f"{worker.error_message}; {worker.waiting_for}"
    if worker.error_message or not worker.attempts:
        return worker.error_message
    last = worker.attempts[-1]
    return f"signal {last.signal}" if last.signal is not None else None


def _never_began(worker: WorkerView) -> bool:
    """Of skipped ones: their attempts are those for which nodes had them ahead of time and gave them back."""
    return worker.status == "skipped" and worker.started_at is None


RUN_COLUMNS: list[Column[RunView]] = [
    Column("run", lambda run: run.id),
    Column("status", lambda run: run.status),
    Column("workflow", lambda run: run.workflow),
    Column("created", lambda run: local_time(run.created_at)),
    Column("took", lambda run: duration(run.started_at, run.completed_at)),
    Column("workers", lambda run: counted(run.counts)),
]
WORKER_COLUMNS: list[Column[WorkerView]] = [
    Column("worker", lambda worker: worker.name),
    Column("status", lambda worker: "unreachable" if worker.unreachable else worker.status),
    Column("node", lambda worker: None if _never_began(worker) else worker.node),
    Column("attempts", lambda worker: 0 if _never_began(worker) else len(worker.attempts)),
    Column("took", lambda worker: duration(worker.started_at, worker.completed_at)),
    Column("reason", _exit),
]
