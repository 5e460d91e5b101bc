"""Commands that look at the audit in a gateway's data folder, on its machine, whether the gateway runs or not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import typer

from wattle.cli import options
from wattle.cli.output import Column, dumps, output_for, styled
from wattle.errors import InvalidRequest

BROKEN = 1


def register(app: typer.Typer) -> None:
    """Add these commands."""
    audit = typer.Typer(help="Who asked a gateway for what change, and who was refused.", no_args_is_help=True)
    audit.command("show")(show)
    audit.command("verify")(verify)
    app.add_typer(audit, name="audit")


def show(
    limit: Annotated[int, typer.Option("--limit", metavar="N", min=1, help="So many of them, the newest.")] = 100,
    who: Annotated[str | None, typer.Option("--who", metavar="NAME", help="Requests of this one alone.")] = None,
    refused: Annotated[bool, typer.Option("--refused", help="Refused requests alone.")] = False,
    data: options.Data = None,
    json: options.Json = False,
) -> None:
    """Show records, oldest first; each request with what became of it."""
    from wattle.store.audit import newest_first

    def wanted(record: dict[str, Any]) -> bool:
        return (who is None or record.get("who") == who) and not (refused and record.get("allowed", True))

    chosen = list(islice(filter(wanted, _with_outcomes(newest_first(_file(data)))), limit))[::-1]
    if json:
        print(dumps(chosen))
        return
    columns = [Column[dict[str, Any]](name, _cell(number)) for number, name in enumerate(_COLUMNS)]
    output_for(False).listing(chosen, columns, "no records")


def verify(
    head: Annotated[
        list[str] | None,
        typer.Option(
            "--head", metavar="NUMBER:HASH", help="A head noted earlier that must still be there; may be repeated."
        ),
    ] = None,
    data: options.Data = None,
    json: options.Json = False,
) -> None:
    """Compute the chain of records again. Exit status 1 where one is changed, gone, added or moved."""
    from wattle.store import audit

    verdict = audit.verify(_file(data), _heads(head or []))
    if json:
        print(dumps(asdict(verdict)))
    else:
        mark = styled("FAIL", fg="red") if verdict.problems else styled("ok  ", fg="green")
        print(f"{mark} {verdict.file}: {verdict.rows} records, head {verdict.number}:{verdict.hash}")
        for problem in verdict.problems:
            print(f"     {problem}")
    raise typer.Exit(BROKEN if verdict.problems else 0)


def _with_outcomes(newest_first: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Requests and what is no request, newest first; outcomes become parts of their requests, as ``outcome``."""
    outcomes: dict[Any, dict[str, Any]] = {}
    for record in newest_first:
        if record.get("kind") == "outcome":
            outcomes[record.get("of")] = {key: record[key] for key in ("at", "code", "shown") if key in record}
        else:
            outcome = outcomes.pop(record["number"], None)
            yield record if outcome is None else record | {"outcome": outcome}


_PARTS = {"at", "who", "role", "method", "path", "allowed", "code"}  # of a request's record
_COLUMNS = ("number", "at", "who", "role", "from", "request", "result")


def _cell(number: int) -> Callable[[dict[str, Any]], str]:
    return lambda record: _row(record)[number]


def _row(record: dict[str, Any]) -> tuple[str, ...]:
    number = str(record["number"])
    if record.get("kind") != "request" or _PARTS - record.keys():  # verify says what is wrong with it
        return number, str(record.get("at", "")), "", "", "", str(record.get("kind")), ""
    outcome = record.get("outcome", {})
    what = " ".join(filter(None, (outcome.get("code", "not known"), outcome.get("shown"))))
    result = f"allowed, {what}" if record["allowed"] else f"refused, {record['code']}"
    request = f"{record['method']} {record['path']}"
    place = record.get("certificate") or record.get("session") or ""
    return number, record["at"], record["who"], str(record["role"] or ""), place, request, result


def _heads(texts: list[str]) -> dict[int, str]:
    heads = {}
    for text in texts:
        number, _, hash = text.partition(":")
        if not (number.isascii() and number.isdigit() and len(hash) == 64):
            raise InvalidRequest(
                f"--head {text[:80]!r} is no head; write NUMBER:HASH, as wattle audit verify prints it"
            )
        heads[int(number)] = hash
    return heads


def _file(data: Path | None) -> Path:
    from wattle.settings import ClientSettings, load_settings
    from wattle.store.audit import NAME

    return load_settings(ClientSettings, flags={"data": data}).data / NAME
