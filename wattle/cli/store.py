"""Commands that look after the stores of a data folder, on this machine, whether an agent runs on it or not."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wattle import __version__
from wattle.cli import options
from wattle.cli.output import dumps, styled
from wattle.names import process_name

if TYPE_CHECKING:
    from wattle.store.checking import Report

DAMAGED = 1


def register(app: typer.Typer) -> None:
    """Add these commands."""
    store = typer.Typer(help="Look after the databases of a data folder.", no_args_is_help=True)
    store.command("check")(check)
    app.add_typer(store, name="store")
    app.command()(backup)
    app.command()(restore)


def check(data: options.Data = None, json: options.Json = False) -> None:
    """Look for damage in the databases of a data folder. They are only read, and its agents may run."""
    from wattle.store import checking

    reports = [checking.check(path) for path in checking.stores_in(_data(data))]
    _print(reports, json)
    raise typer.Exit(0 if all(report.ok for report in reports) else DAMAGED)


def backup(
    dest: Annotated[Path, typer.Argument(metavar="DEST", help="The folder to make; it must not exist.")],
    data: options.Data = None,
    json: options.Json = False,
) -> None:
    """Copy the databases of a data folder to a new folder. Its agents may run."""
    from wattle.store import backup as backups

    _print(backups.backup(_data(data), dest, version=__version__), json)


def restore(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder that wattle backup made.")],
    data: Annotated[Path, typer.Option("--data", metavar="DIR", help="The data folder to make, or to repair.")],
    replace: Annotated[
        bool, typer.Option("--replace", help="Put the backup's databases in the place of those there, which are kept.")
    ] = False,
    json: options.Json = False,
) -> None:
    """Make a data folder of a backup; no agent may run on it."""
    from wattle.store import backup as backups

    reports = backups.restore(source, data, replace=replace)
    _print(reports, json)
    for owner in (owner for report in reports for owner in report.owners):
        name = process_name(owner, "coordinator")
        hint = f"its runs belong to {owner}: start the coordinator with --name {owner}"
        typer.echo(
            hint + (f" (wattle up: --name {name}; only to look: WATTLE_NAME={name})" if name != owner else ""), err=True
        )


def _data(data: Path | None) -> Path:
    from wattle.settings import ClientSettings, load_settings

    return load_settings(ClientSettings, flags={"data": data}).data


def _print(reports: list[Report], as_json: bool) -> None:
    if as_json:
        print(dumps([asdict(report) for report in reports]))
        return
    for report in reports:
        mark = styled("ok  ", fg="green") if report.ok else styled("FAIL", fg="red")
        size = f"{report.size + report.log_size} bytes"
        schema = "" if report.schema is None else f", schema {report.schema}"
        rows = ", ".join(f"{count} {table}" for table, count in report.rows.items() if table != "meta")
        print(f"{mark} {report.file}: {size}{schema}{': ' if rows else ''}{rows}")
        for problem in report.problems:
            print(f"     {problem}")
