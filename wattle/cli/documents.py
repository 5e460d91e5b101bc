"""Commands about documents; none of them needs a network: validate, plan, schema, import wfformat."""

from __future__ import annotations

import json as jsonlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wattle.cli import options as o
from wattle.cli.output import output_for, print_json_line, shown

if TYPE_CHECKING:
    from wattle.document.compile import Plan


def register(app: typer.Typer) -> None:
    """Add these commands."""
    for command in (validate, plan, schema):
        app.command()(command)
    importing = typer.Typer(help="Turn other systems' workflows into documents.", no_args_is_help=True)
    importing.command()(wfformat)
    app.add_typer(importing, name="import")


def validate(file: o.File, json: o.Json = False) -> None:
    """Check a document: every problem with its place and fix. Exit status 2 where there is one."""
    from wattle.cli.running import read_document
    from wattle.core.graph import levels
    from wattle.document.load import load

    document = load(read_document(file), file=str(file))
    needs = {worker.name: _needs(worker.inputs, worker.needs) for worker in document.workers}
    workers, depth = len(needs), len(levels(needs))
    if json:
        print_json_line({"ok": True, "workers": workers, "levels": depth})
    else:
        print(f"ok: {workers} worker{'' if workers == 1 else 's'}, {depth} level{'' if depth == 1 else 's'}")


def _needs(inputs: dict[str, str], needs: list[str]) -> list[str]:
    return list(dict.fromkeys([*(source.partition("/")[0] for source in inputs.values()), *needs]))


def plan(file: o.File, param: o.Param = None, params_file: o.ParamsFile = None, json: o.Json = False) -> None:
    """Show which workers would run together, and the longest chain."""
    from wattle.cli.running import parse_params, read_document
    from wattle.document.compile import plan as plan_of
    from wattle.document.load import load

    found = plan_of(load(read_document(file), file=str(file)), parse_params(param, params_file))
    if json:
        from dataclasses import asdict

        output_for(True).record(asdict(found), [])
    else:
        _print_plan(found)


def _print_plan(found: Plan) -> None:
    print(f"{found.name}: {found.workers} workers in {len(found.levels)} levels, mode {found.mode}")
    for number, names in enumerate(found.levels, 1):
        print(f"  {number:>3}: {_some(names)}")
    print(f"critical path ({len(found.critical_path)}): {' -> '.join(found.critical_path)}")
    if found.peak:
        print(f"most at once: {shown(found.peak)}")


def _some(names: list[str], most: int = 20) -> str:
    more = f", ... and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def schema() -> None:
    """Print the JSON Schema of documents, for editors and programs."""
    from wattle.document.model import json_schema

    print(jsonlib.dumps(json_schema(), indent=2))


def wfformat(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A WfCommons WfFormat 1.5 instance (JSON).")],
    time_scale: Annotated[float, typer.Option("--time-scale", min=0.0, help="Multiplies measured run times.")] = 1.0,
    data_scale: Annotated[float, typer.Option("--data-scale", min=0.0, help="Multiplies file sizes.")] = 1.0,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="OUT", help="Where to write. Default: standard output.")
    ] = None,
) -> None:
    """Turn a WfCommons instance into a document. Its workers are stand-ins, which take its times and make its files."""
    from wattle.document.wfformat import convert
    from wattle.errors import InvalidRequest

    try:
        document = convert(file.read_bytes(), time_scale=time_scale, data_scale=data_scale, file=str(file))
        text = jsonlib.dumps(document, indent=1) + "\n"
        if output is None:
            typer.echo(text, nl=False)
        else:
            output.write_text(text)
    except OSError as error:
        raise InvalidRequest(f"{error.filename or file}: {error.strerror or error}") from None
