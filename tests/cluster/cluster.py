"""The cluster of docker-compose.yml, as tests drive it: brought up under a name of its own; containers are killed and cut off."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

from tests.network.processes import wait_until
from wattle.client.answers import Health
from wattle.client.blocking import Client
from wattle.errors import Unavailable

ROOT = Path(__file__).parents[2]
IMAGE = "wattle:test"
BASE = os.environ.get("BASE", "python:3.11-slim-bookworm")
SERVICES = (
    "router1", "router2", "router3", "coordinator1", "coordinator2", "gateway1", "gateway2", "runtime1", "runtime2", "runtime3",
)  # fmt: skip
CREDENTIALS = "/data/client/"
COMMAND_TIMEOUT = 600.0
PATIENCE = 60.0


class EngineError(Exception):
    """A command of the container engine failed; the message holds its last words."""


def call(*command: str, environment: Mapping[str, str] | None = None) -> str:
    """What a command prints; raises EngineError."""
    done = subprocess.run(
        command, cwd=ROOT, env=os.environ | dict(environment or {}), capture_output=True, text=True,
        timeout=COMMAND_TIMEOUT, check=False,
    )  # fmt: skip
    if done.returncode != 0:
        raise EngineError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout[-1000:]}\n{done.stderr[-2000:]}")
    return done.stdout.strip()


@cache
def compose_command() -> tuple[str, ...]:
    """The compose implementation that is here: the engine's plugin, or the program; raises EngineError where there is none."""
    try:
        call("docker", "compose", "version")
    except EngineError:
        if shutil.which("docker-compose") is None:
            raise EngineError("neither `docker compose` nor docker-compose is installed") from None
        return ("docker-compose",)
    return ("docker", "compose")


@cache
def problem() -> str | None:
    """Why no cluster can be brought up here; None when one can."""
    if shutil.which("docker") is None:
        return "a container engine is needed, and there is no command docker"
    try:
        call("docker", "version", "--format", "{{.Server.Version}}")
    except EngineError as error:
        return f"no container engine answers: {str(error).splitlines()[-1]}"
    try:
        compose_command()
        call("docker", "image", "inspect", "--format", "{{.Id}}", BASE)
    except EngineError as error:
        return f"{str(error).splitlines()[-1]}"
    return None


class Cluster:
    """Made by ``cluster``. Clients enter by the router of node 3, which no test kills or cuts off."""

    def __init__(self, folder: Path) -> None:
        self.project = f"wattle-test-{secrets.token_hex(3)}"
        ports = free_ports(3)
        self.entrance = f"tls/127.0.0.1:{ports[2]}"
        self.bundle, self.token = folder / "member.bundle", folder / "token"
        self.environment = {
            "COMPOSE_PROJECT_NAME": self.project, "IMAGE": IMAGE, "BASE": BASE, "LOST_AFTER": "3", "HEALTH_INTERVAL": "10s",
            **{f"PORT{number}": str(port) for number, port in enumerate(ports, 1)},
        }  # fmt: skip

    def compose(self, *arguments: str) -> str:
        """Run a command of compose on this cluster."""
        return call(*compose_command(), *arguments, environment=self.environment)

    def client(self) -> Client:
        """A client of the cluster, not yet entered; its token is the one in ``WATTLE_TOKEN_FILE``."""
        return Client(self.entrance, bundle=self.bundle, timeout=5.0, patience=PATIENCE)

    def up(self, *options: str) -> None:
        """Bring up what is not."""
        self.compose("up", "--detach", "--no-build", *options)

    def fetch_credentials(self) -> None:
        """Get the client's bundle and token, as its shell has them."""
        for file in (self.bundle, self.token):
            file.touch(mode=0o600)
            place = f"{CREDENTIALS}{file.name}"
            file.write_text(self.compose("run", "--rm", "-T", "--no-deps", "--entrypoint", "cat", "client", place))

    def containers(self, service: str) -> list[str]:
        """The ids of a service's containers."""
        return self.compose("ps", "--quiet", service).split()

    def unhealthy(self) -> list[str]:
        """The services that have not shown yet that they answer. Asked of the engine: compose takes seconds of CPU for ten."""
        healthy = call(
            "docker", "ps", "--filter", f"label=com.docker.compose.project={self.project}", "--filter", "health=healthy",
            "--format", '{{.Label "com.docker.compose.service"}}',
        )  # fmt: skip
        return sorted(set(SERVICES) - set(healthy.split()))

    def state(self, service: str) -> dict[str, Any]:
        """What an agent says of itself to its health check."""
        told: dict[str, Any] = json.loads(self.compose("exec", "-T", service, "/usr/local/lib/wattle/health"))
        return told

    def kill(self, service: str) -> None:
        """SIGKILL, to all that is in its container."""
        self.compose("kill", "-s", "KILL", service)

    def start(self, service: str) -> None:
        """Start what was killed."""
        self.compose("start", service)

    def restart(self, service: str) -> None:
        """As in an upgrade: SIGTERM, and started anew once it has ended."""
        self.compose("restart", "--timeout", "20", service)

    def cut(self, node: int) -> None:
        """Take a node's router off the network that it shares with the others."""
        call("docker", "network", "disconnect", f"{self.project}_mesh", self.containers(f"router{node}")[0])

    def heal(self, node: int) -> None:
        """Undo ``cut``."""
        router = f"router{node}"
        call("docker", "network", "connect", "--alias", router, f"{self.project}_mesh", self.containers(router)[0])

    def logs(self) -> str:
        """The last words of everybody."""
        return self.compose("logs", "--no-color", "--tail", "30")

    def down(self) -> None:
        """End and remove everything, volumes included."""
        self.compose("down", "--volumes", "--timeout", "1", "--remove-orphans")


@contextmanager
def cluster(folder: Path) -> Iterator[Cluster]:
    """The cluster, up; it is gone after the block. ``folder`` is for the credentials of its clients."""
    made = Cluster(folder)
    try:
        made.up()
        yield made
    finally:
        made.down()


def lives(health: Health) -> dict[str, str]:
    """The peers in sight, each with its incarnation."""
    return {peer.name: peer.incarnation for peer in health.peers}


def whole(client: Client, nodes: int = 3) -> None:
    """Wait until everybody is in sight and as many nodes take work."""
    wait_until(lambda: _is_whole(client, nodes), "the cluster is whole", PATIENCE)


def _is_whole(client: Client, nodes: int) -> bool:
    try:
        roles = [peer.role for peer in client.health().peers]
        ready = [node.name for node in client.nodes() if node.status == "ready"]
    except Unavailable:  # the client's own router is on its way
        return False
    counts = (roles.count("router"), roles.count("coordinator"), roles.count("gateway"))
    return counts == (3, 2, 2) and len(ready) == nodes


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
