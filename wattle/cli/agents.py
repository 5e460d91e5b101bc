"""Commands that are agents: up, coordinator, runtime, gateway, router, and agent run for those of others.

They share most of their options, which stand here once, as the parameters of functions that are never called: ``_command`` makes
commands of them. What an option means is said in wattle/settings.
"""

from __future__ import annotations

import inspect
import runpy
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Annotated, Any

import typer

from wattle.cli import cluster
from wattle.cli.hosting import ROLES, Flags, run_roles
from wattle.errors import InvalidRequest, StoreError


def _shared(
    data: Annotated[
        Path | None, typer.Option("--data", metavar="DIR", help="Store, logs, files and the socket.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", help="This peer's name. Default: the host's.")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", metavar="NAME", help="Default: default.")] = None,
    listen: Annotated[
        list[str] | None,
        typer.Option(
            "--listen",
            metavar="ENDPOINT",
            help="Where to listen; may be repeated. Default: DIR/wattle.sock alone.",
        ),
    ] = None,
    connect: Annotated[
        list[str] | None, typer.Option("--connect", metavar="ENDPOINT", help="A peer or router; may be repeated.")
    ] = None,
    config: Annotated[
        Path | None, typer.Option("--config", metavar="FILE", help="Settings (TOML). Default: WATTLE_CONFIG.")
    ] = None,
    bundle: Annotated[
        Path | None,
        typer.Option("--bundle", metavar="FILE", help="A bundle of a secured cluster: wattle cluster issue."),
    ] = None,
    insecure: Annotated[
        bool | None,
        typer.Option("--insecure", help="Use TCP without certificates: whoever reaches it can run commands."),
    ] = None,
    mode: Annotated[str | None, typer.Option("--mode", help="peer, client or router.")] = None,
    multicast: Annotated[
        bool | None, typer.Option("--multicast/--no-multicast", help="Find peers on the local network.")
    ] = None,
    zenoh_config: Annotated[
        Path | None,
        typer.Option("--zenoh-config", metavar="FILE", help="Zenoh's own configuration (JSON5), for TLS and access."),
    ] = None,
    lease: Annotated[
        float | None, typer.Option("--lease", metavar="SECONDS", help="Silence until a link is dead.")
    ] = None,
    synchronous: Annotated[
        str | None, typer.Option("--synchronous", help="normal, or full to survive power cuts.")
    ] = None,
    log_level: Annotated[str | None, typer.Option("--log-level", help="debug, info, warning or error.")] = None,
    log_format: Annotated[str | None, typer.Option("--log-format", help="auto, human or json.")] = None,
    log_file: Annotated[
        Path | None, typer.Option("--log-file", metavar="FILE", help="Append logs to this file. Default: stderr.")
    ] = None,
) -> None:
    """Options of every agent."""


def _of_runtimes(
    slots: Annotated[int | None, typer.Option("--slots", help="Tasks at a time. Default: the number of CPUs.")] = None,
    labels: Annotated[
        list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="A label of this node; may be repeated.")
    ] = None,
    resources: Annotated[
        list[str] | None,
        typer.Option("--resource", metavar="NAME=AMOUNT", help="A resource of this node; may be repeated."),
    ] = None,
    stop_timeout: Annotated[
        float | None, typer.Option("--stop-timeout", metavar="SECONDS", help="What running tasks get at SIGTERM.")
    ] = None,
) -> None:
    """Options of runtimes."""


def _to_join(
    file: Annotated[
        Path | None, typer.Argument(metavar="[FILE]", help="The bundle. Default: the one installed in the data folder.")
    ] = None,
) -> None:
    """What join takes besides."""


def register(app: typer.Typer) -> None:
    """Add these commands."""
    app.command("up")(_command(up, _shared, _of_runtimes))
    app.command("coordinator")(_command(_agent("coordinator", "keeps runs, and says what runs where"), _shared))
    app.command("runtime")(_command(_agent("runtime", "executes tasks on this machine"), _shared, _of_runtimes))
    app.command("gateway")(_command(_agent("gateway", "answers the public keys"), _shared))
    app.command("router")(_command(_agent("router", "joins networks, and runs nothing"), _shared))
    cluster.register(app, _command(cluster.join, _to_join, _shared, _of_runtimes))
    agent = typer.Typer(help="Run agents by name, or your own.", no_args_is_help=True)
    agent.command("run", context_settings={"ignore_unknown_options": True, "allow_extra_args": True})(agent_run)
    app.add_typer(agent, name="agent")


def _command(handler: Callable[[Flags], int], *groups: Callable[..., None]) -> Callable[..., None]:
    """A command with the options of ``groups``, which hands them to ``handler`` as a dictionary."""

    def command(**flags: Any) -> None:
        raise typer.Exit(handler(flags))

    parameters = [one for group in groups for one in _parameters(group)]
    command.__doc__ = handler.__doc__
    command.__annotations__ = {one.name: one.annotation for one in parameters}
    vars(command)["__signature__"] = inspect.Signature(parameters)
    return command


@cache
def _parameters(group: Callable[..., None]) -> tuple[inspect.Parameter, ...]:
    return tuple(inspect.signature(group, eval_str=True).parameters.values())


def _agent(role: str, does: str) -> Callable[[Flags], int]:
    def handler(flags: Flags) -> int:
        run_roles([role], flags, _say_ready)
        return 0

    handler.__doc__ = f"Run a {role}: it {does}."
    return handler


def up(flags: Flags) -> int:
    """Run a coordinator, a gateway and a runtime in one process."""
    from wattle.network import HOLD_NAME, make_folder, note_endpoints, take_lock
    from wattle.settings import ClientSettings, load_settings
    from wattle.settings.values import socket_endpoint

    data = load_settings(ClientSettings, config=flags["config"], flags={"data": flags["data"]}).data
    make_folder(data)
    lock = take_lock(data)
    if lock is None:
        raise StoreError(
            f"another wattle up or wattle run uses the data folder {data}: stop it, or choose another with --data",
            code="STORE_IN_USE",
        )
    with lock:
        (data / HOLD_NAME).unlink(missing_ok=True)  # an embedded network's; this one lasts

        def ready(endpoints: list[str]) -> None:
            on_socket = socket_endpoint(data) in endpoints
            if not on_socket:
                note_endpoints(lock, endpoints)
            _say_up(endpoints, flags["data"], on_socket)

        run_roles(ROLES, flags, ready)
        return 0


def _say_ready(endpoints: list[str]) -> None:
    print(" ".join(["ready", *endpoints]), flush=True)


def _say_up(endpoints: list[str], data: Path | None, on_socket: bool) -> None:
    _say_ready(endpoints)
    where = "" if data is None else f" --data {data}"
    if not on_socket:
        where = f" --connect {endpoints[0] if endpoints else 'ENDPOINT'}"  # nobody listens on the folder's socket
    print(
        f"use it from another terminal: wattle run FILE{where}, wattle status{where}; Ctrl-C here stops it", flush=True
    )


def agent_run(
    ctx: typer.Context,
    agent: Annotated[str, typer.Argument(metavar="PATH_OR_NAME", help="A program, or one of Wattle's agents by name.")],
) -> None:
    """Run an agent by name, or a Python program by its path. Further arguments are the agent's."""
    if agent in (*ROLES, "router", "up"):
        root = ctx.find_root()
        root.command.main([agent, *ctx.args], prog_name=root.info_name)
    path = Path(agent)
    if not path.is_file():
        raise InvalidRequest(f"agent {agent!r} is no file and none of {', '.join((*ROLES, 'router', 'up'))}")
    sys.argv = [agent, *ctx.args]
    sys.path.insert(0, str(path.resolve().parent))
    runpy.run_path(agent, run_name="__main__")
