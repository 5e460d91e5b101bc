"""Configurations, and what people are told when they cannot work."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from wattle.bus.blocking import BlockingBus
from wattle.bus.config import UNIX_PATH_MAX, ZenohOptions, open_session, zenoh_config
from wattle.errors import SettingsError, Unavailable


def setting(options: ZenohOptions, path: str) -> Any:
    """One value of the configuration that ``options`` make."""
    return json.loads(zenoh_config(options).get_json(path))


@pytest.fixture
def port() -> Iterator[int]:
    """A TCP port on which something listens that speaks no Zenoh and closes what it accepts."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_without_a_file_nothing_is_open_and_nothing_is_scouted() -> None:
    options = ZenohOptions()
    assert setting(options, "mode") == "peer"
    assert setting(options, "listen/endpoints") == []
    assert setting(options, "connect/endpoints") == []
    assert setting(options, "scouting/multicast/enabled") is False
    assert setting(options, "scouting/gossip/enabled") is True
    assert setting(options, "transport/shared_memory/enabled") is False
    assert setting(options, "transport/link/tx/lease") == 1000
    assert setting(options, "transport/link/tx/keep_alive") == 4
    assert setting(options, "transport/link/tx/queue/size")["background"] == 16
    assert setting(options, "connect/exit_on_failure") is False
    assert setting(options, "connect/retry")["period_init_ms"] == 200


def test_options_are_taken_over() -> None:
    options = ZenohOptions(
        mode="router",
        listen=("tcp/127.0.0.1:0", "unixsock-stream/s"),
        connect=("tcp/[::1]:7447#so_sndbuf=65000",),
        multicast=True,
        gossip=False,
        lease_ms=5000,
        wait_ms=700,
    )
    assert setting(options, "mode") == "router"
    assert setting(options, "listen/endpoints") == ["tcp/127.0.0.1:0", "unixsock-stream/s"]
    assert setting(options, "connect/endpoints") == ["tcp/[::1]:7447#so_sndbuf=65000"]
    assert setting(options, "scouting/multicast/enabled") is True
    assert setting(options, "scouting/gossip/enabled") is False
    assert setting(options, "transport/link/tx/lease") == 5000
    assert setting(options, "transport/link/tx/queue/congestion_control/block/wait_before_close") == 10_000_000
    assert setting(options, "connect/timeout_ms") == {"client": 700}


def test_a_file_replaces_the_defaults_and_options_win_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "zenoh.json5"
    file.write_text(
        """// a comment
        {mode: "client", connect: {endpoints: ["tcp/127.0.0.1:1"]}, scouting: {multicast: {enabled: true}},
         transport: {link: {tx: {lease: 7000}}, shared_memory: {enabled: true}}}"""
    )
    options = ZenohOptions(config_file=file)
    assert setting(options, "mode") == "client"
    assert setting(options, "connect/endpoints") == ["tcp/127.0.0.1:1"]
    assert setting(options, "scouting/multicast/enabled") is True
    assert setting(options, "transport/link/tx/lease") == 7000
    assert setting(options, "transport/shared_memory/enabled") is False
    options = ZenohOptions(config_file=file, mode="peer", connect=("tcp/127.0.0.1:2",), multicast=False, lease_ms=800)
    assert setting(options, "mode") == "peer"
    assert setting(options, "connect/endpoints") == ["tcp/127.0.0.1:2"]
    assert setting(options, "scouting/multicast/enabled") is False
    assert setting(options, "transport/link/tx/lease") == 800


@pytest.mark.parametrize(
    ("content", "words"),
    [('{mode: "peer"', "1:"), ('{mode: "boss"}', "boss"), ("{modus: 1}", "modus"), (None, "No such file")],
)
def test_a_file_that_is_wrong_is_named(tmp_path: Path, content: str | None, words: str) -> None:
    file = tmp_path / "zenoh.json5"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SettingsError) as caught:
        zenoh_config(ZenohOptions(config_file=file))
    assert str(file) in caught.value.message
    assert words in caught.value.message
    assert ".rs:" not in caught.value.message


@pytest.mark.parametrize(
    "endpoint",
    ["", "nonsense", "tcp/", "foo/127.0.0.1:1", "tcp/127.0.0.1", "tcp/127.0.0.1:99999", "tcp/:1", "tls/host"],
)
def test_an_endpoint_that_is_none_is_named_with_the_fix(endpoint: str) -> None:
    for options in (ZenohOptions(listen=(endpoint,)), ZenohOptions(connect=(endpoint,))):
        with pytest.raises(SettingsError, match=r"<protocol>/<address>|<host>:<port>") as caught:
            zenoh_config(options)
        assert repr(endpoint) in caught.value.message


def test_a_socket_path_that_is_too_long_is_refused(sockets: Path) -> None:
    path = str(sockets / ("x" * (UNIX_PATH_MAX - len(str(sockets)) - 1)))
    assert len(path) == UNIX_PATH_MAX
    with BlockingBus(ZenohOptions(listen=(f"unixsock-stream/{path}",))):
        pass
    for options in (
        ZenohOptions(listen=(f"unixsock-stream/{path}x",)),
        ZenohOptions(connect=(f"unixsock-stream/{path}x",)),
    ):
        with pytest.raises(SettingsError, match="108 bytes long"):
            zenoh_config(options)


def test_a_socket_in_no_folder_is_refused(sockets: Path) -> None:
    with pytest.raises(SettingsError, match="does not exist; create it"):
        zenoh_config(ZenohOptions(listen=(f"unixsock-stream/{sockets}/none/s",)))


def test_a_file_in_the_place_of_a_socket_is_spared(sockets: Path) -> None:
    (sockets / "s").write_text("precious")
    with pytest.raises(SettingsError, match="no socket"):
        open_session(ZenohOptions(listen=(f"unixsock-stream/{sockets}/s",)))
    assert (sockets / "s").read_text() == "precious"


def test_an_address_in_use_is_named(sockets: Path, port: int) -> None:
    socket_endpoint = f"unixsock-stream/{sockets}/s"
    with BlockingBus(ZenohOptions(listen=(socket_endpoint,))):
        for endpoint in (socket_endpoint, f"tcp/127.0.0.1:{port}"):
            with pytest.raises(Unavailable, match="another process") as caught:
                open_session(ZenohOptions(listen=(endpoint,)))
            assert caught.value.code == "NO_NETWORK"
            assert endpoint in caught.value.message


def test_what_zenoh_refuses_otherwise_is_named() -> None:
    with pytest.raises(SettingsError, match=r"listen tls/127.0.0.1:0\): .*private key"):
        open_session(ZenohOptions(listen=("tls/127.0.0.1:0",)))


def test_a_client_with_nobody_there_fails_at_once_and_says_why(sockets: Path) -> None:
    (sockets / "file").write_text("")
    stale = socket.socket(socket.AF_UNIX)
    stale.bind(str(sockets / "stale"))
    stale.close()
    causes = {
        f"unixsock-stream/{sockets}/none": "there is no such socket",
        f"unixsock-stream/{sockets}/stale": "nothing listens there",
        "tcp/127.0.0.1:9": "nothing listens there",
        "tcp/no.such.host.invalid:7447": "unknown host",
    }
    with pytest.raises(Unavailable) as caught:
        open_session(ZenohOptions(mode="client", connect=tuple(causes)))
    assert caught.value.code == "NO_NETWORK"
    for endpoint, cause in causes.items():
        assert f"{endpoint}: {cause}" in caught.value.message
    with pytest.raises(Unavailable, match="name an endpoint") as caught:
        open_session(ZenohOptions(mode="client"))
    assert caught.value.code == "NO_NETWORK"
