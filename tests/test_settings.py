"""Settings: where values come from, what they may be, and how what is wrong is told."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import socket
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from wattle import settings as package
from wattle.core.coordinator import CoordinatorOptions
from wattle.core.runtime import RuntimeOptions
from wattle.errors import SettingsError
from wattle.names import is_name
from wattle.settings import (
    AgentSettings,
    ClientSettings,
    CoordinatorSettings,
    GatewaySettings,
    RouterSettings,
    RuntimeSettings,
    default_data,
    default_name,
    load_settings,
)
from wattle.settings import load as load_module
from wattle.settings.agents import AGENTS, KINDS
from wattle.settings.base import Settings
from wattle.settings.reference import settings_of, written
from wattle.settings.values import endpoint_problem, flag_name, socket_endpoint, variable_name

ROOT = Path(__file__).parents[1]
SHARED_WITH_CLIENT = ("data", "namespace", "connect")


@pytest.fixture(autouse=True)
def _no_settings_around(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    for name in [*os.environ]:
        if name.upper().startswith("WATTLE_") or name == "XDG_DATA_HOME":
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path_factory.mktemp("h")))  # short: a socket's path has at most 107 bytes
    monkeypatch.setattr(load_module, "_warned", set())


def failure(kind: type[Settings], **given: Any) -> SettingsError:
    with pytest.raises(SettingsError) as caught:
        load_settings(kind, **given)
    return caught.value


def file_with(folder: Path, text: str) -> Path:
    path = folder / "wattle.toml"
    path.write_text(text, encoding="utf-8")
    return path


# --- precedence ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RuntimeSettings, ClientSettings])
def test_each_source_beats_the_weaker_ones(
    kind: type[RuntimeSettings | ClientSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert load_settings(kind).namespace == "default"
    config = file_with(tmp_path, 'namespace = "of-file"')
    assert load_settings(kind, config=config).namespace == "of-file"
    monkeypatch.setenv("WATTLE_NAMESPACE", "of-variable")
    assert load_settings(kind, config=config).namespace == "of-variable"
    assert load_settings(kind, config=config, flags={"namespace": "of-flag"}).namespace == "of-flag"


def test_flags_that_are_none_or_empty_are_not_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTLE_CONNECT", "tcp/a:1")
    monkeypatch.setenv("WATTLE_SLOTS", "3")
    settings = load_settings(RuntimeSettings, flags={"connect": [], "listen": (), "slots": None})
    assert (settings.connect, settings.listen, settings.slots) == (("tcp/a:1",), (), 3)


@pytest.mark.parametrize("kind", [RuntimeSettings, ClientSettings])
def test_an_empty_variable_counts_as_not_set(
    kind: type[RuntimeSettings | ClientSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTLE_NAMESPACE", "")
    assert load_settings(kind).namespace == "default"
    assert load_settings(kind, config=file_with(tmp_path, 'namespace = "lab"')).namespace == "lab"


@pytest.mark.parametrize("kind", [RuntimeSettings, ClientSettings])
def test_the_config_flag_beats_its_variable(
    kind: type[RuntimeSettings | ClientSettings], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "1.toml", tmp_path / "2.toml"
    first.write_text('namespace = "one"')
    second.write_text('namespace = "two"')
    monkeypatch.setenv("WATTLE_CONFIG", str(first))
    assert load_settings(kind).namespace == "one"
    assert load_settings(kind, config=second).namespace == "two"


def test_a_role_reads_the_top_level_and_its_own_table_which_wins(tmp_path: Path) -> None:
    config = file_with(
        tmp_path,
        'namespace = "lab"\nlease = 5\n[runtime]\nslots = 3\nlease = 1\n[coordinator]\nlost_after = 60\n[client]\ntimeout = 2',
    )
    runtime = load_settings(RuntimeSettings, config=config)
    assert (runtime.namespace, runtime.slots, runtime.lease) == ("lab", 3, 1.0)
    coordinator = load_settings(CoordinatorSettings, config=config)
    assert (coordinator.namespace, coordinator.lost_after, coordinator.lease) == ("lab", 60.0, 5.0)
    client = load_settings(ClientSettings, config=config)
    assert (client.namespace, client.timeout) == ("lab", 2.0)


def test_an_agent_of_your_own_has_a_table_too(tmp_path: Path) -> None:
    class ProbeSettings(AgentSettings):
        role = "probe"
        rate: int = 1

    assert load_settings(ProbeSettings, config=file_with(tmp_path, "[probe]\nrate = 7")).rate == 7


# --- values ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["tcp/a:1,tcp/b:2", " tcp/a:1 , tcp/b:2,", '["tcp/a:1", "tcp/b:2"]'])
@pytest.mark.parametrize("kind", [RuntimeSettings, ClientSettings])
def test_a_list_in_a_variable(
    kind: type[RuntimeSettings | ClientSettings], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WATTLE_CONNECT", text)
    assert load_settings(kind).connect == ("tcp/a:1", "tcp/b:2")


@pytest.mark.parametrize("given", ["zone=lab,disk=", '{"zone": "lab", "disk": ""}', ["zone=lab", "disk="]])
def test_pairs(given: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings(RuntimeSettings, flags={"labels": given}).labels == {"zone": "lab", "disk": ""}
    if isinstance(given, str):
        monkeypatch.setenv("WATTLE_LABELS", given)
        assert load_settings(RuntimeSettings).labels == {"zone": "lab", "disk": ""}


def test_sizes_may_be_texts() -> None:
    runtime = load_settings(RuntimeSettings, flags={"resources": ["memory=1.5GiB", "gpus=2", "licenses=0.5"]})
    assert runtime.resources == {"memory": 1.5 * 2**30, "gpus": 2.0, "licenses": 0.5}
    assert load_settings(GatewaySettings, flags={"max_payload": "2MiB"}).max_payload == 2**21


@pytest.mark.parametrize(
    ("kind", "flags", "said"),
    [
        (RuntimeSettings, {"slots": 0}, "--slots = 0 should be greater than or equal to 1"),
        (RuntimeSettings, {"slots": "many"}, "--slots = 'many' should be a valid integer"),
        (RuntimeSettings, {"lease": True}, "--lease = True should be a number"),
        (RuntimeSettings, {"stop_timeout": "nan"}, "--stop-timeout = 'nan' should be"),
        (RuntimeSettings, {"stop_timeout": float("inf")}, "--stop-timeout = inf should be"),
        (RuntimeSettings, {"labels": ["lab"]}, "--label = ['lab'] holds 'lab', which is no pair; write key=value"),
        (RuntimeSettings, {"labels": "a=1,a=2"}, "--label = 'a=1,a=2' gives 'a' twice"),
        (RuntimeSettings, {"labels": "{zone}"}, "--label = '{zone}' looks like JSON and is none"),
        (RuntimeSettings, {"labels": ["a b=1"]}, "--label[a b] = 'a b' holds ' '"),
        (RuntimeSettings, {"resources": ["gpus=-1"]}, "--resource[gpus] = '-1' should be greater than or equal to 0"),
        (RuntimeSettings, {"resources": ["memory=8QB"]}, "--resource[memory] = '8QB' could not interpret byte unit"),
        (
            RuntimeSettings,
            {"log_level": "loud"},
            "--log-level = 'loud' should be 'debug', 'info', 'warning' or 'error'",
        ),
        (RuntimeSettings, {"zenoh_config": "/nowhere.json5"}, "should name a file; there is none at /nowhere.json5"),
        (RuntimeSettings, {"mode": "client"}, "--mode needs something to be a client of: give --connect"),
        (RuntimeSettings, {"name": "lab 1"}, "--name = 'lab 1' holds ' '; names use letters"),
        (RuntimeSettings, {"rate": 1}, "--rate = 1 is not a setting of the runtime"),
        (GatewaySettings, {"max_payload": "2GiB"}, "--max-payload = '2GiB' should be less than or equal to 1073741824"),
        (GatewaySettings, {"max_payload": False}, "--max-payload = False should be a number"),
        (ClientSettings, {"timeout": 0}, "--timeout = 0 should be a number of seconds above 0"),
        (ClientSettings, {"timeout": "nan"}, "--timeout = 'nan' should be a number of seconds above 0"),
        (ClientSettings, {"timeout": 10**400}, "should be a number of seconds above 0"),
        (ClientSettings, {"slots": 1}, "--slots = 1 is not a setting of the client"),
    ],
)
def test_a_wrong_value_is_told_with_its_flag_and_what_is_allowed(
    kind: type[Settings], flags: dict[str, Any], said: str
) -> None:
    assert said in str(failure(kind, flags=flags))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("namespace", "a/b"),
        ("namespace", ""),
        ("namespace", 3),
        ("connect", "localhost:7447"),
        ("connect", ["tcp/a"]),
        ("connect", [3]),
        ("connect", 3),
        ("connect", "[1"),
        ("connect", "TCP/a:1"),
        ("data", ""),
        ("data", 3),
        ("data", "a\0b"),
        ("data", "~nobody-of-that-name/x"),
    ],
)
def test_client_and_agents_refuse_a_shared_value_in_the_same_words(name: str, value: Any) -> None:
    assert str(failure(ClientSettings, flags={name: value})) == str(failure(RuntimeSettings, flags={name: value}))


def test_client_and_agents_understand_a_shared_value_alike(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    flags = {"data": "here/../there", "namespace": "lab", "connect": ["udp/[::1]:7447"]}
    client, agent = load_settings(ClientSettings, flags=flags), load_settings(RuntimeSettings, flags=flags)
    for name in SHARED_WITH_CLIENT:
        assert getattr(client, name) == getattr(agent, name)
    assert client.data == tmp_path / "there"


def test_variables_reach_a_class_without_the_loader_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WATTLE_SLOTS", "5")
    monkeypatch.setenv("WATTLE_LISTEN", "tcp/[::]:7447")
    settings = RuntimeSettings()
    assert (settings.slots, settings.listen, RuntimeSettings(slots=2).slots) == (5, ("tcp/[::]:7447",), 2)


@pytest.mark.parametrize("kind", [RuntimeSettings, ClientSettings])
def test_settings_do_not_change(kind: type[RuntimeSettings | ClientSettings]) -> None:
    with pytest.raises((ValueError, AttributeError)):
        load_settings(kind).namespace = "other"  # type: ignore[misc]  # what is tested


# --- folders, names, endpoints ---------------------------------------------------------------------------------------


def test_the_default_folder_follows_xdg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_data() == Path.home() / ".local/share/wattle"
    monkeypatch.setenv("XDG_DATA_HOME", "relative")  # to be ignored, by the specification
    assert default_data() == Path.home() / ".local/share/wattle"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_data() == tmp_path / "wattle"
    assert load_settings(ClientSettings).data == load_settings(RuntimeSettings).data == tmp_path / "wattle"


@pytest.mark.parametrize("kind", [RuntimeSettings, ClientSettings])
def test_a_user_without_a_home_must_say_where(kind: type[Settings], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # what it does for a uid without an entry
    assert "say with --data or WATTLE_DATA" in str(failure(kind))
    assert load_settings(kind, flags={"data": "/srv/wattle"})


def test_the_default_name_tells_agents_on_one_host_apart_and_lasts(tmp_path: Path) -> None:
    usual = default_name(default_data())
    one, two = default_name(tmp_path / "one"), default_name(tmp_path / "two")
    assert len({usual, one, two}) == 3
    assert one.startswith(usual[:59] + "-")
    assert one == default_name(tmp_path / "one")
    (tmp_path / "link").symlink_to(tmp_path)
    assert one == default_name(tmp_path / "link/one")
    assert load_settings(RuntimeSettings, flags={"data": tmp_path / "one"}).name == one
    assert load_settings(RuntimeSettings, flags={"data": tmp_path / "one", "name": "lab-1"}).name == "lab-1"


def test_the_default_name_is_a_name_on_any_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for host in ("x" * 64, "-wunderlich_ü.example.org", ""):
        monkeypatch.setattr(os, "uname", lambda host=host: os.uname_result(("Linux", host, "", "", "")))
        assert is_name(default_name(tmp_path))
        assert is_name(default_name(default_data()))


def test_the_limit_of_a_sockets_path_is_the_systems(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: Any) -> None:
    folder = tmp_path_factory.mktemp("s")
    room = 107 - len(os.fsencode(f"{folder}/"))
    for size, fits in ((room, True), (room + 1, False)):
        path = folder / ("ü" * (size // 2) + "x" * (size % 2))
        with socket.socket(socket.AF_UNIX) as listener:
            if fits:
                listener.bind(str(path))
            else:
                with pytest.raises(OSError, match="too long"):
                    listener.bind(str(path))
        assert (endpoint_problem(f"unixsock-stream/{path}") is None) == fits


def test_a_data_folder_too_deep_for_a_socket_is_refused_unless_it_listens_elsewhere(tmp_path: Path) -> None:
    deep = tmp_path / ("d" * 100)
    error = str(failure(RuntimeSettings, flags={"data": deep}))
    assert "--data makes a socket that has a path of" in error
    assert "choose a shorter --data, or give --listen" in error
    (tmp_path / "zenoh.json5").touch()
    assert load_settings(RuntimeSettings, flags={"data": deep, "zenoh_config": tmp_path / "zenoh.json5"})
    settings = load_settings(RuntimeSettings, flags={"data": deep, "listen": ["tcp/127.0.0.1:0"]})
    assert settings.endpoints == ("tcp/127.0.0.1:0",)


def test_a_data_folder_that_would_cut_its_endpoint_is_refused() -> None:
    assert "holds '#' or '?'" in str(failure(RuntimeSettings, flags={"data": "/srv/a#b"}))


def test_endpoints_by_default_are_the_socket_in_the_folder_and_none_for_a_client() -> None:
    flags = {"data": "/srv/w", "connect": ["tcp/a:1"]}
    assert load_settings(RuntimeSettings, flags=flags).endpoints == ("unixsock-stream//srv/w/wattle.sock",)
    assert load_settings(RuntimeSettings, flags={**flags, "mode": "client"}).endpoints == ()
    assert load_settings(RuntimeSettings, flags={**flags, "zenoh_config": __file__}).endpoints == ()
    assert load_settings(ClientSettings, flags=flags).endpoints == ("tcp/a:1",)
    assert load_settings(ClientSettings, flags={"data": "/srv/w"}).endpoints == (socket_endpoint(Path("/srv/w")),)
    assert load_settings(RouterSettings, flags=flags).mode == "router"


@pytest.mark.parametrize("endpoint", ["tcp/a:1", "tls/[::1]:7447#verify_name=false", "unixsock-stream//x?a=b"])
def test_endpoints_that_zenoh_takes(endpoint: str) -> None:
    assert endpoint_problem(endpoint) is None


@pytest.mark.parametrize(
    ("endpoint", "said"),
    [
        ("localhost:7447", "such as tcp/localhost:7447"),
        ("", "such as tcp/192.0.2.1:7447"),
        ("tcp/", "should be <protocol>/<address>"),
        ("http/a:80", "unknown protocol 'http'; there are tcp"),
        ("tcp/a", "such as tcp/a:7447"),
        ("tcp/[::1]", "such as tcp/[::1]:7447"),
        (None, "should be a text"),
    ],
)
def test_endpoints_that_zenoh_does_not_take(endpoint: object, said: str) -> None:
    assert said in (endpoint_problem(endpoint) or "")


# --- files that are wrong --------------------------------------------------------------------------------------------


def test_everything_wrong_is_told_at_once_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = file_with(
        tmp_path,
        "# a comment\n"
        "conect = []\n"
        'mode = "pear"\n'
        "slots = 4\n"
        "[runtime]\n"
        "  stop_timeout = -1\n"
        "queue_patince = 3\n"
        "[gatway]\n"
        "[coordinator]\n"
        "lost_afer = 1\n",
    )
    monkeypatch.setenv("WATTLE_LEASE", "soon")
    error = failure(RuntimeSettings, config=config, flags={"slots": 0})
    assert str(error).splitlines() == [
        "9 settings are wrong:",
        f"  {config}:2: conect is not a setting; did you mean connect?",
        f"  {config}:4: slots is not a setting of every role; write it below [runtime]",
        f"  {config}:7: [runtime] queue_patince is not a setting of the runtime; did you mean queue_patience?",
        f"  {config}:8: gatway is not a setting; did you mean gateway?",
        f"  {config}:10: [coordinator] lost_afer is not a setting of the coordinator; did you mean lost_after?",
        f"  {config}:3: mode = 'pear' should be 'peer', 'client' or 'router'",
        "  WATTLE_LEASE = 'soon' should be a valid number, unable to parse string as a number",
        "  --slots = 0 should be greater than or equal to 1",
        f"  {config}:6: [runtime] stop_timeout = -1 should be greater than or equal to 0",
    ]
    assert error.code == "INVALID_SETTINGS"
    assert {item["source"] for item in error.detail} == {"file", "variable", "flag"}
    assert error.detail[-1]["key"] == "stop_timeout"


def test_a_value_without_a_line_of_its_own_is_told_without_a_line(tmp_path: Path) -> None:
    config = file_with(tmp_path, "runtime = {slots = 0}")
    assert str(failure(RuntimeSettings, config=config)).startswith(f"{config}: [runtime] slots = 0 should be")


def test_a_role_that_is_no_table(tmp_path: Path) -> None:
    config = file_with(tmp_path, "runtime = 3")
    assert f"{config}:1: runtime should be a table: write [runtime]" in str(failure(RuntimeSettings, config=config))


def test_a_file_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    missing = tmp_path / "missing.toml"
    assert f"{missing} (from --config) cannot be read" in str(failure(ClientSettings, config=missing))
    monkeypatch.setenv("WATTLE_CONFIG", str(tmp_path))
    assert f"{tmp_path} (from WATTLE_CONFIG) cannot be read" in str(failure(ClientSettings))
    assert "--config = '' should be a path" in str(failure(ClientSettings, config=""))


def test_a_file_that_is_no_toml(tmp_path: Path) -> None:
    assert "is no TOML" in str(failure(ClientSettings, config=file_with(tmp_path, "data = [\n")))
    deep = file_with(tmp_path, f"data = {'[' * 5000}")
    assert "nested too deeply" in str(failure(ClientSettings, config=deep))
    path = tmp_path / "latin.toml"
    path.write_bytes('data = "ü"'.encode("latin-1"))
    assert "is not UTF-8 (byte 8)" in str(failure(ClientSettings, config=path))


def test_a_long_value_is_cut_in_the_error() -> None:
    error = failure(RuntimeSettings, flags={"mode": "x" * 10_000})
    assert len(str(error)) < 300
    assert len(error.detail[0]["value"]) <= 120


@hypothesis_settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(sorted(CoordinatorSettings.setting_names() | RuntimeSettings.setting_names())),
        st.one_of(
            st.text(max_size=20), st.integers(), st.floats(), st.booleans(), st.lists(st.text(max_size=5)), st.binary()
        ),
    )
)
def test_any_flags_give_settings_or_a_settings_error(flags: dict[str, Any]) -> None:
    for kind in KINDS.values():
        with contextlib.suppress(SettingsError):
            load_settings(kind, flags={name: value for name, value in flags.items() if name in kind.setting_names()})


# --- misspelt variables ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [RuntimeSettings, ClientSettings])
def test_a_misspelt_variable_is_warned_of_once(
    kind: type[Settings], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("WATTLE_CONECT", "tcp/a:1")
    load_settings(kind)
    load_settings(kind)
    assert [record.getMessage() for record in caplog.records] == [
        "unknown variable ignored variable='WATTLE_CONECT' did_you_mean='WATTLE_CONNECT'"
    ]


@pytest.mark.parametrize(
    "name", ["RUN", "WORKER", "INPUT_DATA", "PARAM_NAME", "STOP_TIMEOUT", "CONFIG", "SOMETHING_ELSE"]
)
def test_no_warning_of_variables_that_are_meant(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(f"WATTLE_{name}", str(file_with(tmp_path, "")))
    load_settings(ClientSettings)
    assert not caplog.records


# --- cost ------------------------------------------------------------------------------------------------------------


def test_a_client_loads_its_settings_without_heavy_imports() -> None:
    code = (
        "import sys; from wattle.settings import ClientSettings, load_settings; load_settings(ClientSettings);"
        "print([m for m in ('pydantic', 'pydantic_settings', 'structlog', 'asyncio', 'trio', 'rich') if m in sys.modules])"
    )
    env = {"PYTHONPATH": str(ROOT), "WATTLE_CONNECT": "tcp/a:1", "HOME": "/srv"}
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_public_name_is_there() -> None:
    assert all(getattr(package, name) for name in package.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Nothing'"):
        _ = package.Nothing


# --- the reference ---------------------------------------------------------------------------------------------------


def test_the_written_reference_is_what_the_code_says() -> None:
    for path, text in written(ROOT).items():
        assert path.read_text(encoding="utf-8") == text, f"{path}: run python -m wattle.settings.reference"


@pytest.mark.parametrize("role", KINDS)
def test_a_shipped_file_gives_nothing_so_that_a_zenoh_config_holds(role: str) -> None:
    config = ROOT / "config" / f"{role}.toml"
    assert load_settings(KINDS[role], config=config) == load_settings(KINDS[role])
    if role in AGENTS:
        assert load_settings(AGENTS[role], config=config).model_fields_set == set()


@pytest.mark.parametrize("role", KINDS)
def test_a_shipped_file_names_every_setting_with_its_default(role: str, tmp_path: Path) -> None:
    text = (ROOT / "config" / f"{role}.toml").read_text(encoding="utf-8")
    for name in ("router.json5", "lab-1.bundle"):
        (tmp_path / name).touch()
    text = re.sub(r"^#(?=\w)", "", text, flags=re.MULTILINE)
    text = text.replace("zenoh-configs", str(tmp_path)).replace("/etc/wattle", str(tmp_path))
    document = tomllib.loads(text)
    assert {*document, *document.pop(role, {})} - {role} == KINDS[role].setting_names()
    settings, usual = (load_settings(KINDS[role], config=config) for config in (file_with(tmp_path, text), None))
    without_default = {setting.name for which in ("shared", role) for setting in settings_of(which) if setting.derived}
    different = {name for name in KINDS[role].setting_names() if getattr(settings, name) != getattr(usual, name)}
    assert different <= without_default
    assert settings.data == Path("/var/lib/wattle")


@pytest.mark.parametrize("role", KINDS)
def test_the_page_names_every_setting_with_its_variable_and_flag(role: str) -> None:
    page = (ROOT / "docs/settings.md").read_text(encoding="utf-8")
    for name in KINDS[role].setting_names():
        assert f"| `{name}` | `{variable_name(name)}` | `{flag_name(name)}` |" in page


def test_every_setting_is_described() -> None:
    for role in ["shared", *KINDS]:
        assert all(len(setting.description) > 15 and setting.description.endswith(".") for setting in settings_of(role))


@pytest.mark.parametrize(
    ("options", "kind"), [(CoordinatorOptions, CoordinatorSettings), (RuntimeOptions, RuntimeSettings)]
)
def test_the_cores_have_the_same_defaults(options: type[Any], kind: type[AgentSettings]) -> None:
    both = [
        f for f in dataclasses.fields(options) if f.name in kind.model_fields and f.default is not dataclasses.MISSING
    ]
    assert both
    assert {f.name: f.default for f in both} == {f.name: kind.model_fields[f.name].default for f in both}


def test_roles_are_those_of_the_keys() -> None:
    from wattle.protocol.keys import ROLES

    assert tuple(AGENTS) == ROLES
