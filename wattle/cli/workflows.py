"""Commands about stored workflows: workflows, start, delete."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Annotated

import typer

from wattle.cli import options as o
from wattle.cli.output import Column, local_time, output_for

if TYPE_CHECKING:
    from wattle.protocol.records import WorkflowView


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (workflows, start, delete):
        app.command()(command)


def workflows(
    status: Annotated[str | None, typer.Option("--status", help="Only those whose latest run has this status.")] = None,
    limit: Annotated[int, typer.Option("--limit", min=1, help="How many to list.")] = 20,
    everything: Annotated[bool, typer.Option("--all", help="List all of them.")] = False,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """List stored workflows."""
    with o.open_reader(connect, data, namespace, bundle) as client:
        found = client.workflows(status)
        output_for(json).listing(found if everything else islice(found, limit), WORKFLOW_COLUMNS, "no workflows")


def start(
    name: o.Workflow,
    param: o.Param = None,
    params_file: o.ParamsFile = None,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
    json: o.Json = False,
) -> None:
    """Start a run of a stored workflow and print the run's id."""
    from wattle.cli.running import parse_params

    params = parse_params(param, params_file)
    with o.open_client(connect, data, namespace, bundle) as client:
        view = client.start(name, params)
    if json:
        output_for(True).record(view, [])
    else:
        print(view.id)


def delete(
    name: o.Workflow,
    connect: o.Connect = None,
    data: o.Data = None,
    namespace: o.Namespace = None,
    bundle: o.Bundle = None,
) -> None:
    """Delete a stored workflow; its runs stay."""
    with o.open_client(connect, data, namespace, bundle) as client:
        client.delete_workflow(name)
    print(f"workflow {name} is deleted")


WORKFLOW_COLUMNS: list[Column[WorkflowView]] = [
    Column("workflow", lambda workflow: workflow.name),
    Column("status", lambda workflow: workflow.status),
    Column("workers", lambda workflow: workflow.workers),
    Column("updated", lambda workflow: local_time(workflow.updated_at)),
    Column("last start", lambda workflow: local_time(workflow.started_at)),
]
