"""The ``wattle`` command: its parts, and what becomes of errors.

Exit statuses: 0 done or succeeded, 1 failed, 2 invalid input, 3 no network or timed out, 4 cancelled; 130 interrupted where there was
nothing to cancel. Nothing heavy is imported before a command needs it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command_name

from wattle import __version__
from wattle.cli import agents, audit, documents, nodes, raw, runs, store, token, workflows
from wattle.cli.hosting import leave
from wattle.cli.output import print_json_line, styled
from wattle.errors import InternalError, StoreError, Unavailable, WattleError

FAILED, INVALID, NO_NETWORK, CANCELLED, INTERRUPTED = 1, 2, 3, 4, 130


class _Group(TyperGroup):
    """The commands, with the one place where errors become messages and exit statuses."""

    def invoke(self, ctx: Any) -> Any:
        as_json = "--json" in sys.argv or "--json" in ctx.args
        try:
            return super().invoke(ctx)
        except WattleError as error:
            _report(error, as_json)
            raise typer.Exit(exit_status(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None
        except BrokenPipeError:
            # Whoever read our output has enough. Python would complain about the unwritten rest at exit.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(0) from None


def exit_status(error: WattleError) -> int:
    """The exit status that an error stands for."""
    if isinstance(error, Unavailable | StoreError):
        return NO_NETWORK
    return FAILED if isinstance(error, InternalError) or type(error) is WattleError else INVALID


def _report(error: WattleError, as_json: bool) -> None:
    if as_json:
        print_json_line({"error": error.as_dict()})
    sys.stderr.write(f"{styled('error:', fg=typer.colors.RED)} {error.message}\n")


app = typer.Typer(
    name="wattle",
    cls=_Group,
    help="A workflow scheduler without a server: run DAGs of commands here or on a network of peers.",
    no_args_is_help=True,
    rich_markup_mode=None,  # or rich would be imported to print help
    pretty_exceptions_enable=False,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"wattle {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
    token_file: Annotated[
        str | None,
        typer.Option(
            "--token-file", metavar="FILE", help="A file with a token that says who asks. Default: WATTLE_TOKEN_FILE."
        ),
    ] = None,
) -> None:
    if token_file is not None:  # as a variable, so that every command and what it starts finds it
        os.environ.pop("WATTLE_TOKEN", None)
        os.environ["WATTLE_TOKEN_FILE"] = token_file


for _part in (runs, workflows, nodes, documents, agents, store, token, audit, raw):
    _part.register(app)


def main() -> None:
    """The entry point."""
    name = sys.argv[1] if len(sys.argv) > 1 else ""
    leave_out_all_but(name)
    try:
        app()
    except SystemExit as ended:
        if name == "agent" or not isinstance(ended.code, int):  # a program of the user's may have more to do
            raise
        leave(ended.code)


def leave_out_all_but(name: str) -> None:
    """Have no other commands made than the one that is asked for: making all takes longer than most commands do."""
    asked = [
        command for command in app.registered_commands if name == (command.name or _function_name(command.callback))
    ]
    if asked or name == "--version":
        app.registered_commands, app.registered_groups = asked, []


def _function_name(function: Callable[..., Any] | None) -> str:
    return "" if function is None else get_command_name(function.__name__)
