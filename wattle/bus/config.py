"""How a Zenoh session is configured and opened, and what is said when that fails.

Without a config file Wattle's own choices hold: no multicast, no shared memory, a listener only where one is asked for, a lease
of one second (a cut link is noticed in about that time) and quick reconnecting. A config file (JSON5, see zenoh-configs/) takes
the place of all these choices but one: shared memory stays off, because queries of more than 3 kB have been lost over it on
stalled hosts. What the options name explicitly always wins.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import zenoh

from wattle.errors import SettingsError, Unavailable, WattleError

Mode = Literal["peer", "client", "router"]

PROTOCOLS = ("tcp", "udp", "tls", "quic", "ws", "unixsock-stream")
"""What the Python build of Zenoh can listen on and connect to."""

UNIX_SOCKET = "unixsock-stream"
UNIX_PATH_MAX = 107  # bytes; the kernel's sockaddr_un holds 108 with the ending zero
KEEP_ALIVES_PER_LEASE = 4
BULK_BATCHES = 16
"""Batches of 64 KiB of file content that may wait for a link; Zenoh takes no more. With its usual two, whoever sends is stopped and
woken for each: 1 GB took 3.2 s of processor time at both ends together (seen on 1.10.2), and takes 1.9 s with these."""

OPEN_TIMEOUT_MS = 3_000  # how long a client waits for something that accepts its connection and then says nothing
SCOUTING_DELAY_MS = 100  # how long a peer's start waits for its `connect` endpoints; it goes on trying afterwards
_RUST_PLACE = re.compile(r" at /\S+\.rs:\d+\.?")


@dataclass(frozen=True, slots=True)
class ZenohOptions:
    """How to join the network. None and () mean: as the config file says or, without one, as in the comments.

    Endpoints are ``<protocol>/<address>``, e.g. ``unixsock-stream/<path>`` or ``tcp/<host>:<port>``.
    """

    mode: Mode | None = None  # peer
    listen: tuple[str, ...] = ()  # nowhere
    connect: tuple[str, ...] = ()  # to nobody
    multicast: bool | None = None  # False
    gossip: bool | None = None  # True
    lease_ms: int | None = None  # 1000: a silent link is given up after this many milliseconds
    wait_ms: int = 0  # client mode: how long to keep trying to connect; 0 tries every endpoint once
    config_file: Path | None = None
    secured: Mapping[str, Any] = field(default_factory=dict)  # what a bundle has to say: TLS and access rules, by path


def zenoh_config(options: ZenohOptions) -> zenoh.Config:
    """The Zenoh configuration for ``options``; raises SettingsError that names the file, endpoint or value and the fix."""
    for endpoint in options.listen:
        _check_endpoint(endpoint, "listen")
    for endpoint in options.connect:
        _check_endpoint(endpoint, "connect")
    if options.lease_ms is not None and options.lease_ms < 1:
        raise SettingsError(f"lease of {options.lease_ms} ms: must be at least 1 ms")
    return _config(options)


def _config(options: ZenohOptions) -> zenoh.Config:
    config = _base(options.config_file)
    values = {} if options.config_file is not None else _defaults(options)
    for path, value in (values | _explicit(options) | dict(options.secured)).items():
        config.insert_json5(path, json.dumps(value))
    return config


def lease_of(options: ZenohOptions) -> float:
    """Seconds of silence after which others give up a link to a session with these options."""
    return float(json.loads(zenoh_config(options).get_json("transport/link/tx/lease"))) / 1000


def open_ways(options: ZenohOptions) -> list[str]:
    """The ways in which these options link a session to whoever comes, without certificates: endpoints, and multicast.

    An address of this machine alone counts: it has other users. Multicast counts unless access rules deny what is not named, because what
    is found by it is connected to, whatever it is.
    """
    config = _config(options)  # unchecked: a socket's folder may still have to be made
    ends = [*endpoints(config, "listen"), *endpoints(config, "connect")]
    certified = json.loads(config.get_json("transport/link/tls/enable_mtls")) is True
    ways = [end for end in dict.fromkeys(ends) if not _is_closed(end, certified)]
    rules = json.loads(config.get_json("access_control"))
    ruled = rules["enabled"] and rules["default_permission"] == "deny"
    finds = json.loads(config.get_json("scouting/multicast/enabled")) is not False  # unset, Zenoh has it on
    if finds and not ruled and not (options.mode == "client" and ends):
        ways.append("multicast")
    return ways


def _is_closed(endpoint: str, certified: bool) -> bool:
    """Whether only who is allowed to can be at the other end of it."""
    protocol, _, rest = endpoint.partition("/")
    if protocol in ("tls", "quic"):
        return certified or "enable_mtls=true" in re.split(r"[#;]", rest)
    return protocol == UNIX_SOCKET


def open_session(options: ZenohOptions) -> zenoh.Session:
    """Open a session; blocks until it is open.

    A peer or a router opens whether or not anybody is there to connect to. A client needs one of its endpoints: otherwise raises
    Unavailable (NO_NETWORK), as it does where an endpoint to listen on is taken. Raises SettingsError as ``zenoh_config`` does.
    """
    # What goes wrong reaches people through Wattle; RUST_LOG=debug brings Zenoh's own words back.
    zenoh.init_log_from_env_or("off")
    return open_configured(zenoh_config(options))


def open_configured(config: zenoh.Config) -> zenoh.Session:
    """The same for a configuration that is made already."""
    try:
        return zenoh.open(config)
    except zenoh.ZError as error:
        raise _open_error(config, reason(error)) from None


@contextmanager
def more_threads() -> Iterator[None]:
    """Give the sessions of this process more of Zenoh's threads, where the first is opened within.

    Closing a link waits, on one of these threads, for whoever waits to send on it. Seen on 1.10.2: while 8 outlets (wattle/bus/senders.py)
    waited for a client that had stopped reading, the one sending thread that Zenoh has by default was held up for 30 s, and with it all
    links of the process, whose other ends gave them up. And when two peers have dialled each other (gossip brings that about) and their
    link is cut, closing its two halves can hold up a receiving thread for 10 s, of which Zenoh has two by default. The variable is Zenoh's
    only way to be told, and is read once; it is taken back, because tasks inherit the environment.
    """
    if "ZENOH_RUNTIME" in os.environ:
        yield
        return
    os.environ["ZENOH_RUNTIME"] = "(rx: (worker_threads: 8), tx: (worker_threads: 8), net: (worker_threads: 4))"
    try:
        yield
    finally:
        os.environ.pop("ZENOH_RUNTIME", None)


def reason(error: Exception) -> str:
    """What Zenoh says went wrong, without the places in its source code."""
    return _RUST_PLACE.sub("", str(error)).strip()


def _base(file: Path | None) -> zenoh.Config:
    if file is None:
        return zenoh.Config()
    try:
        return zenoh.Config.from_file(file)
    except zenoh.ZError as error:
        raise SettingsError(f"Zenoh config file {file}: {reason(error)}") from None


def _defaults(options: ZenohOptions) -> dict[str, Any]:
    return {
        "mode": "peer",
        "listen/endpoints": [],
        "connect/endpoints": [],
        "connect/exit_on_failure": options.mode == "client",
        "connect/retry": {"period_init_ms": 200, "period_max_ms": 500, "period_increase_factor": 1.5},
        "scouting/multicast/enabled": False,
        # One of a pair that found each other dials, not both: see more_threads.
        "scouting/multicast/autoconnect_strategy": {"peer": {"to_peer": "greater-zid"}},
        "scouting/gossip/enabled": True,
        **_lease(1_000),
        "transport/link/tx/keep_alive": KEEP_ALIVES_PER_LEASE,
        "transport/link/tx/queue/size/background": BULK_BATCHES,
        # With multicast the delay stays Zenoh's (500 ms), since others have to be found first.
        **({} if options.multicast else {"scouting/delay": SCOUTING_DELAY_MS}),
        **({"transport/unicast/open_timeout": OPEN_TIMEOUT_MS} if options.mode == "client" else {}),
    }


def _explicit(options: ZenohOptions) -> dict[str, Any]:
    given: dict[str, Any] = {
        "mode": options.mode,
        "listen/endpoints": list(options.listen) or None,
        "connect/endpoints": list(options.connect) or None,
        "connect/timeout_ms": {"client": options.wait_ms} if options.wait_ms else None,
        "scouting/multicast/enabled": options.multicast,
        "scouting/gossip/enabled": options.gossip,
        **({} if options.lease_ms is None else _lease(options.lease_ms)),
        "transport/shared_memory/enabled": False,
    }
    return {path: value for path, value in given.items() if value is not None}


def _lease(milliseconds: int) -> dict[str, Any]:
    """When a link is given up: nothing was heard for a lease, or nothing could be sent for two.

    Zenoh would try to send for 5 s, and while it does that it does not see that the lease is over.
    """
    return {
        "transport/link/tx/lease": milliseconds,
        "transport/link/tx/queue/congestion_control/block/wait_before_close": 2_000 * milliseconds,  # microseconds
    }


# --- what people are told -------------------------------------------------------------------------------------------


def _check_endpoint(endpoint: str, what: Literal["listen", "connect"]) -> None:
    """Refuse what Zenoh would refuse later or with fewer words."""
    protocol, _, address = endpoint.partition("/")
    address = _bare(address)
    if protocol not in PROTOCOLS or not address:
        raise SettingsError(
            f"{what} endpoint {endpoint!r}: must be <protocol>/<address>, such as tcp/host:7447 or unixsock-stream//run/wattle.sock;"
            f" protocols are {', '.join(PROTOCOLS)}"
        )
    if protocol == UNIX_SOCKET:
        _check_socket_path(endpoint, address, what)
    elif _host_and_port(address) is None:
        raise SettingsError(f"{what} endpoint {endpoint!r}: {address!r} is no <host>:<port> with a port up to 65535")


def _check_socket_path(endpoint: str, address: str, what: str) -> None:
    length = len(address.encode())
    if length > UNIX_PATH_MAX:
        raise SettingsError(
            f"{what} endpoint {endpoint!r}: the path is {length} bytes long and a socket's may have {UNIX_PATH_MAX};"
            " use a shorter one (a data folder higher up, or a path relative to the working directory)"
        )
    if what == "connect":
        return
    path = Path(address)
    if not path.parent.is_dir():
        raise SettingsError(
            f"{what} endpoint {endpoint!r}: folder {str(path.parent)!r} does not exist; create it first"
        )
    if path.exists() and not stat.S_ISSOCK(path.stat().st_mode):
        raise SettingsError(
            f"{what} endpoint {endpoint!r}: there is a file that is no socket; move it or use another path"
        )


def _bare(address: str) -> str:
    """An address without Zenoh's ``?metadata`` and ``#config``."""
    return re.split(r"[?#]", address, maxsplit=1)[0]


def _host_and_port(address: str) -> tuple[str, int] | None:
    host, _, port = address.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or int(port) > 65535:
        return None
    return host.removeprefix("[").removesuffix("]"), int(port)


def _open_error(config: zenoh.Config, why: str) -> WattleError:
    connect, listen = endpoints(config, "connect"), endpoints(config, "listen")
    if "Unable to connect" in why and connect:
        causes = "; ".join(f"{endpoint}: {_why_unreachable(endpoint)}" for endpoint in connect)
        return Unavailable(f"no network: cannot connect to {causes}", code="NO_NETWORK", detail=connect)
    if "No peer specified" in why or "Unable to connect" in why or "scouting" in why:
        return Unavailable(
            "no network: nobody was found; name an endpoint to connect to, such as unixsock-stream/<data folder>/wattle.sock"
            " or tcp/<host>:7447",
            code="NO_NETWORK",
        )
    if "acquire lock" in why or "already in use" in why:
        return Unavailable(
            f"cannot listen on {', '.join(listen)}: another process does; stop that one, or give this one an endpoint"
            " or a data folder of its own",
            code="NO_NETWORK",
            detail=listen,
        )
    places = "; ".join(f"{what} {', '.join(ends)}" for what, ends in (("listen", listen), ("connect", connect)) if ends)
    return SettingsError(f"cannot open a Zenoh session ({places or 'no endpoints'}): {why}")


def endpoints(config: zenoh.Config, what: str) -> list[str]:
    """The endpoints of a configuration, in whichever of its forms a file wrote them (a list, or lists by mode or by group)."""
    found: list[str] = []

    def collect(node: Any) -> None:
        if isinstance(node, str) and "/" in node:
            found.append(node)
        elif isinstance(node, list):
            for item in node:
                collect(item)
        elif isinstance(node, dict):
            for item in node.values():
                collect(item)

    collect(json.loads(config.get_json(f"{what}/endpoints")))
    return found


def _why_unreachable(endpoint: str) -> str:
    """The likeliest cause that a connection failed, found by trying what an endpoint stands on (for at most a second)."""
    import socket  # here, because no command should pay for it that succeeds

    protocol, _, address = endpoint.partition("/")
    address = _bare(address)
    place = _host_and_port(address)
    try:
        if protocol == UNIX_SOCKET:
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(1.0)
                probe.connect(address)
        elif protocol in ("tcp", "tls", "ws") and place is not None:
            socket.create_connection(place, timeout=1.0).close()
        else:
            return "no answer; check that something listens there, the address, and firewalls"
    except FileNotFoundError:
        return "there is no such socket; start a network there or check the path"
    except ConnectionRefusedError:
        return "nothing listens there; start a network there or check the address"
    except PermissionError:
        return "this user may not use it; check who owns the socket and its folder"
    except socket.gaierror as error:
        return f"unknown host ({error.strerror})"
    except OSError as error:
        return f"no answer ({error}); check the address and firewalls"
    return (
        "something listens there but did not let this session in; check TLS certificates, user and password, and that it"
        " is a Zenoh endpoint of the same protocol"
    )
