"""A LAN of machines, made of network namespaces (Linux, root, iproute2): hosts on one switch whose links can be cut and healed.

Every host is a namespace with an address of its own, multicast and IPv6; the switch is a bridge in a namespace of its own, so nothing
appears among this machine's own interfaces. Names hold the process's id: several LANs may exist at once. Cuts happen at the switch: a
host sees no carrier loss, only silence, as when a cable is pulled two rooms away.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.network.processes import Agent, Network

COMMAND_TIMEOUT = 30.0
WINDOW = Path(__file__).with_name("window.py")


class IpError(Exception):
    """A command of iproute2 failed; the message holds its last words."""


@dataclass(frozen=True)
class Host:
    """A machine of the LAN. ``network`` starts agents and commands of Wattle on it."""

    name: str
    address: str
    namespace: str
    network: Network

    @property
    def port(self) -> str:
        """Its end of the cable at the switch."""
        return f"port-{self.name}"

    def run(self, *command: str, text: str = "", timeout: float = COMMAND_TIMEOUT) -> subprocess.CompletedProcess[str]:
        """Run a command on this host to its end, with ``text`` on its standard input; it must succeed."""
        done = subprocess.run(
            [*on(self.namespace), *command], input=text, capture_output=True, text=True, timeout=timeout, check=False
        )
        assert done.returncode == 0, (
            f"{self.name}: {' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}"
        )
        return done

    def window(self, port: int) -> str:
        """An endpoint for clients outside the LAN that leads to a TCP port of this host, whatever is cut."""
        path = self.network.folder / f"window-{port}"
        command = [*on(self.namespace), sys.executable, str(WINDOW), str(path), f"{self.address}:{port}"]
        program = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # ends with the host
        assert program.stdout is not None
        with program.stdout:
            assert program.stdout.readline() == "ready\n", "the window did not open"
        return f"unixsock-stream/{path}"


class Lan:
    """Hosts on a switch; made by ``lan``."""

    def __init__(self, folder: Path, names: tuple[str, ...], environment: Mapping[str, str] | None = None) -> None:
        prefix = f"wtl-{os.getpid()}-{secrets.token_hex(2)}"
        self._switch = f"{prefix}-switch"
        self._parted: tuple[Host, Host] | None = None
        self.hosts: dict[str, Host] = {}
        for number, name in enumerate(names, 1):
            namespace = f"{prefix}-{name}"
            place = folder / name
            place.mkdir(mode=0o700)
            network = Network(place, {"WATTLE_INSECURE": "true", **(environment or {})}, prefix=on(namespace))
            self.hosts[name] = Host(name, f"10.77.0.{number}", namespace, network)

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def build(self) -> None:
        """Make the namespaces and plug them in; raises IpError."""
        _ip("netns", "add", self._switch)
        _ip_batch(
            self._switch,
            "link add switch type bridge forward_delay 0 mcast_snooping 0",
            "link set switch up",
            "link add island type bridge forward_delay 0 mcast_snooping 0",
            "link set island up",
        )
        for host in self.hosts.values():
            _ip("netns", "add", host.namespace)
            _ip_batch(
                self._switch,
                f"link add name {host.port} type veth peer name eth0 netns {host.namespace}",
                f"link set {host.port} master switch",
                f"link set {host.port} up",
            )
            _ip_batch(
                host.namespace,
                "link set lo up",
                f"addr add {host.address}/24 dev eth0",
                "link set eth0 up",
                "route add 224.0.0.0/4 dev eth0",
            )

    def cut(self, host: Host) -> None:
        """Let nothing through from or to a host any more, without a word to it."""
        _ip_batch(self._switch, f"link set {host.port} nomaster")

    def split(self, *hosts: Host) -> None:
        """Let nothing through between these hosts and all others; each side goes on among itself."""
        _ip_batch(self._switch, *(f"link set {host.port} master island" for host in hosts))

    def heal(self, *hosts: Host) -> None:
        """Undo ``cut`` and ``split``."""
        _ip_batch(self._switch, *(f"link set {host.port} master switch" for host in hosts))
        for host in hosts:
            self._isolate(host, host in (self._parted or ()))

    def part(self, one: Host, other: Host) -> None:
        """Let nothing through between two hosts, which all others still reach; one pair at a time."""
        assert self._parted is None, "one pair at a time: rejoin() first"
        self._parted = (one, other)
        for host in self._parted:
            self._isolate(host, True)

    def rejoin(self) -> None:
        """Undo ``part``."""
        for host in self._parted or ():
            self._isolate(host, False)
        self._parted = None

    def lose(self, host: Host, share: float) -> None:
        """Lose this share (0 to 1) of the packets to a host, by chance; raises IpError where the kernel cannot filter packets.

        A classic BPF program at the port instead of the qdisc netem, which fewer kernels have.
        """
        load_random, at_least, end, dropped = 0x20, 0x35, 0x06, 2
        below = min(int(share * 2**32), 2**32 - 1)
        program = f"4,{load_random} 0 0 4294963256,{at_least} 0 1 {below},{end} 0 0 0,{end} 0 0 {dropped},"
        _tc(self._switch, "qdisc", "replace", "dev", host.port, "clsact")
        _tc(
            self._switch,
            "filter",
            "replace",
            "dev",
            host.port,
            "egress",
            "prio",
            "1",
            "handle",
            "1",
            "bpf",
            "da",
            "bytecode",
            program,
        )

    def tear_down(self) -> None:
        """End every process of every host and remove all that was made, however far that was."""
        for host in self.hosts.values():
            host.network.stop()
            _kill_all_in(host.namespace)
        for namespace in (*(host.namespace for host in self.hosts.values()), self._switch):
            subprocess.run(["ip", "netns", "del", namespace], capture_output=True, timeout=COMMAND_TIMEOUT, check=False)

    def _isolate(self, host: Host, isolated: bool) -> None:
        """Isolated ports of a bridge reach all others but one another."""
        _ip_batch(self._switch, f"link set {host.port} type bridge_slave isolated {'on' if isolated else 'off'}")


@contextmanager
def lan(*names: str, environment: Mapping[str, str] | None = None) -> Iterator[Lan]:
    """A LAN that ends with the block, with a short temporary folder for its agents. Names have at most 10 characters."""
    folder = Path(tempfile.mkdtemp(prefix="wtn-", dir="/tmp"))
    made = Lan(folder, names, environment)
    try:
        made.build()
        yield made
    finally:
        made.tear_down()
        shutil.rmtree(folder, ignore_errors=True)


@cache
def problem() -> str | None:
    """Why namespaces cannot be used here; None when they can."""
    if sys.platform != "linux":
        return f"network namespaces are Linux's, and this is {sys.platform}"
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None:
        return "network namespaces need the command ip (iproute2)"
    try:
        with lan("probe") as made:
            made.cut(made["probe"])
    except IpError as error:
        return f"network namespaces do not work here: {error}"
    return None


def on(namespace: str) -> list[str]:
    """What stands before a command that shall run in a namespace."""
    return ["ip", "netns", "exec", namespace]


def together(*starts: Callable[[], Agent]) -> list[Agent]:
    """Start agents side by side, which takes as long as the slowest alone; ends when all are ready."""
    with ThreadPoolExecutor(len(starts)) as pool:
        return [started.result() for started in [pool.submit(start) for start in starts]]


def _kill_all_in(namespace: str) -> None:
    listed = subprocess.run(
        ["ip", "netns", "pids", namespace], capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False
    )
    for pid in listed.stdout.split():
        try:
            os.kill(int(pid), signal.SIGKILL)
        except ProcessLookupError:
            continue  # it ended meanwhile


def _ip(*arguments: str) -> None:
    _call(["ip", *arguments])


def _ip_batch(namespace: str, *lines: str) -> None:
    _call(["ip", "-n", namespace, "-batch", "-"], "\n".join(lines))


def _tc(namespace: str, *arguments: str) -> None:
    _call(["tc", "-n", namespace, *arguments])


def _call(command: list[str], text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=COMMAND_TIMEOUT, check=False)
    if done.returncode != 0:
        raise IpError(f"{' '.join(command)}: {done.stderr.strip()}\n{text}")
