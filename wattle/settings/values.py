"""What a setting's value means: the rules that client and agents share, in plain Python.

Each ``as_...`` function takes a value as a file, a variable or a flag gives it and returns it checked. It raises ValueError with the
end of a sentence that starts with the value.
"""

from __future__ import annotations

import hashlib
import math
import os
from pathlib import Path

from wattle.errors import SettingsError
from wattle.names import as_name, name_problem

SOCKET_NAME = "wattle.sock"
PROTOCOLS = ("tcp", "udp", "tls", "quic", "ws", "unixsock-stream")
"""What the eclipse-zenoh wheel can speak; it tells them apart by case."""

_PREFIX = "wattle_"
_SINGULAR = {"labels": "label", "resources": "resource"}  # flags that are given once per item
_SOCKET_PATH_MAX = 107  # bytes: sockaddr_un has room for 108, the last of which is NUL
_SUFFIX = 5  # characters of a default name's tail: a hyphen and 4 hex digits
_MAX_SECONDS = 366 * 86400.0


def variables() -> dict[str, str]:
    """The ``WATTLE_*`` variables of this process that are not empty, by field name; in any case."""
    found = ((name.lower(), text) for name, text in os.environ.items() if text)
    return {name.removeprefix(_PREFIX): text for name, text in found if name.startswith(_PREFIX)}


def variable_name(field: str) -> str:
    """The environment variable of a field."""
    return (_PREFIX + field).upper()


def flag_name(field: str) -> str:
    """The command line flag of a field."""
    return "--" + _SINGULAR.get(field, field).replace("_", "-")


def as_list(value: object) -> object:
    """A text as the list it stands for, ``a,b`` or ``["a", "b"]``; anything else as it is."""
    if not isinstance(value, str):
        return value
    if value.lstrip().startswith("["):
        return _from_json(value)
    return [part for part in map(str.strip, value.split(",")) if part]


def as_pairs(value: object) -> object:
    """``k=v,k=v``, ``{"k": "v"}`` or a list of ``k=v`` as the mapping it stands for; anything else as it is."""
    if isinstance(value, str) and value.lstrip().startswith("{"):
        return _from_json(value)
    parts = as_list(value)
    if not isinstance(parts, list | tuple):
        return parts
    pairs: dict[str, str] = {}
    for part in parts:
        key, equals, text = str(part).partition("=")
        if not equals:
            raise ValueError(f"holds {part!r}, which is no pair; write key=value")
        if key.strip() in pairs:
            raise ValueError(f"gives {key.strip()!r} twice")
        pairs[key.strip()] = text.strip()
    return pairs


def as_path(value: object) -> Path:
    """A path, made absolute: ``~`` is the home folder, the rest is relative to the working directory."""
    if not isinstance(value, str | os.PathLike) or not str(value):
        raise ValueError("should be a path")
    text = os.path.expanduser(os.fspath(value))
    if "\0" in text:
        raise ValueError("holds a NUL, which no path may")
    if text.startswith("~"):
        raise ValueError("names a home folder that is not known here; write the path from /")
    return Path(os.path.abspath(text))


def as_public_keys(value: object) -> Path | str:
    """Public keys in PEM as they are, anything else as the path of a file."""
    return value if isinstance(value, str) and value.lstrip().startswith("-----BEGIN ") else as_path(value)


def as_text(value: object) -> str:
    """A text, without the blanks around it."""
    if not isinstance(value, str):
        raise ValueError("should be a text, in quotes")  # noqa: TRY004 - as above
    return value.strip()


def as_file(value: object) -> Path:
    """The path of a file that is there."""
    path = as_path(value)
    try:
        found = path.is_file()
    except OSError as error:  # such as a name that is too long
        raise ValueError(f"should name a file: {error.strerror}") from None
    if not found:
        raise ValueError(f"should name a file; there is none at {path}")
    return path


def as_named(value: object) -> str:
    """A name by the one grammar of names."""
    problem = name_problem(value) if isinstance(value, str) else "should be a text, in quotes"
    if problem is not None:
        raise ValueError(problem)
    return str(value)


def as_endpoints(value: object) -> tuple[str, ...]:
    """Zenoh endpoints, each one Zenoh can use."""
    endpoints = as_list(value)
    if not isinstance(endpoints, list | tuple):
        raise ValueError("should be a list of endpoints such as tcp/192.0.2.1:7447")  # noqa: TRY004
    for endpoint in endpoints:
        problem = endpoint_problem(endpoint)
        if problem is not None:
            raise ValueError(f"holds {endpoint!r}, which {problem}" if len(endpoints) > 1 else problem)
    return tuple(endpoints)


def as_timeout(value: object) -> float:
    """A number of seconds above zero."""
    try:
        seconds = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else math.nan
    except (ValueError, OverflowError):  # the latter of an integer of more than 300 digits
        seconds = math.nan
    if not 0 < seconds <= _MAX_SECONDS:
        raise ValueError(f"should be a number of seconds above 0 and up to {_MAX_SECONDS:.0f}")
    return seconds


def endpoint_problem(endpoint: object) -> str | None:
    """Why Zenoh could not use this endpoint, as the end of a sentence that starts with it; None when it could."""
    if not isinstance(endpoint, str):
        return "should be a text such as tcp/192.0.2.1:7447"
    protocol, slash, address = endpoint.partition("/")
    if not slash or not address:
        return f"should be <protocol>/<address>, such as tcp/{protocol if ':' in protocol else '192.0.2.1:7447'}"
    if protocol not in PROTOCOLS:
        return f"starts with the unknown protocol {protocol!r}; there are {', '.join(PROTOCOLS)}"
    # Zenoh takes what follows ? and # for options of the endpoint, not for a part of the path.
    path = address.split("#", 1)[0].split("?", 1)[0]
    if protocol == "unixsock-stream" and (size := len(os.fsencode(path))) > _SOCKET_PATH_MAX:
        return f"has a path of {size} bytes; a unix socket's path has at most {_SOCKET_PATH_MAX}"
    if protocol in ("tcp", "tls", "udp", "quic", "ws") and not path.rpartition(":")[2].isdigit():
        return f"has no port; write {protocol}/<host>:<port>, such as {protocol}/{path.rstrip(':')}:7447"
    return None


def socket_endpoint(data: Path) -> str:
    """The endpoint of the socket in a data folder."""
    return f"unixsock-stream/{data / SOCKET_NAME}"


def socket_problem(data: Path) -> str | None:
    """Why no socket can stand in this data folder, as the end of a sentence that starts with the folder; None when one can."""
    if "#" in str(data) or "?" in str(data):
        return "holds '#' or '?', which cannot stand in a socket's endpoint; choose another --data, or give --listen"
    problem = endpoint_problem(socket_endpoint(data))
    return None if problem is None else f"makes a socket that {problem}: choose a shorter --data, or give --listen"


def default_data() -> Path:
    """``$XDG_DATA_HOME/wattle`` or ``~/.local/share/wattle``; raises SettingsError where no home folder is known."""
    base = os.environ.get("XDG_DATA_HOME", "")
    if not os.path.isabs(base):  # the XDG specification has relative ones ignored
        base = os.path.expanduser("~/.local/share")
    if not os.path.isabs(base):
        raise SettingsError(
            "no home folder is known for this user: say with --data or WATTLE_DATA where Wattle keeps its data"
        )
    return Path(base, "wattle")


def default_name(data: Path) -> str:
    """The host's name; with a tail that stands for ``data`` where that is not the default folder.

    So two agents on one host differ, and each keeps its name over restarts.
    """
    host = as_name(os.uname().nodename)
    place = os.path.realpath(data)
    try:
        usual = os.path.realpath(default_data())
    except SettingsError:  # no home folder: then no folder is the usual one
        usual = ""
    if place == usual:
        return host
    return f"{host[: 64 - _SUFFIX]}-{hashlib.sha256(os.fsencode(place)).hexdigest()[: _SUFFIX - 1]}"


def _from_json(text: str) -> object:
    import json  # rarely needed, and a client starts faster without it

    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"looks like JSON and is none ({error})") from None
