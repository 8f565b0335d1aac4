"""How the parts are put together."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy import app
from dcs_proxy.api.credentials import Credentials
from dcs_proxy.api.known_machines import KnownMachines
from dcs_proxy.app import Options, log_failure, open_factory, open_keyring
from dcs_proxy.console.progress import Progress
from dcs_proxy.console.stderr import draw
from dcs_proxy.errors import ApiUnavailable, ConfigError, DcsError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.http_proxy import parse_http_proxy
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineId, MachineName
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Attempt, ReadySession, Record
from dcs_proxy.ssh.private_agents import PrivateAgents
from dcs_proxy.ssh.user_agent import UserAgent


class Keyring:
    """Stands for the system keyring, and has the arguments with which it was opened."""

    opened: tuple[Any, ...] = ()

    def __init__(self, *arguments: Any, **_: Any) -> None:
        Keyring.opened = arguments

    def read(self) -> str:
        return "dsk-a"


def test_a_keyring_may_take_longer_where_ssh_does_not_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app, "SystemKeyring", Keyring)
    settings, deadline = Settings(key_file=str(tmp_path / "none")), Deadline(60)
    factory = open_factory(Options(str(tmp_path)), {}, settings)
    assert factory.find_credentials(deadline).bearer == "dsk-a"
    # VS Code waits for ssh 17 s by default.
    assert Keyring.opened == (settings.base_url, {}, deadline, 15, factory.notice)
    open_keyring(settings, {})
    url, _, deadline, limit_s, _ = Keyring.opened
    assert (url, deadline.seconds, limit_s) == (settings.base_url, 120, 120)


def test_a_failure_is_logged_once(tmp_path: Path) -> None:
    error = ApiUnavailable("down", machine="dm-foo")
    for _ in range(2):
        log_failure(error, Options(str(tmp_path)), {})
    (line,) = (tmp_path / "log").read_text().splitlines()
    assert f" failed machine=dm-foo code={ApiUnavailable.exit_code} what=" in line


@pytest.mark.parametrize(
    ("options", "variables", "state", "config"),
    [
        (Options(), {}, "/home/me/.ssh/dcs-proxy", None),
        (Options(), {"DCS_PROXY_HOME": "/s", "DCS_PROXY_CONFIG": "~/c.toml"}, "/s",
         "/home/me/c.toml"),
        (Options("~/other", "~/mine.toml"),
         {"DCS_PROXY_HOME": "/s", "DCS_PROXY_CONFIG": "/c.toml"}, "/home/me/other",
         "/home/me/mine.toml"),
        (Options("", ""), {"DCS_PROXY_HOME": "/s", "DCS_PROXY_CONFIG": ""}, "CWD", None),
    ],
)  # fmt: skip
def test_an_option_comes_before_its_variable_and_a_path_is_complete(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
    options: Options, variables: dict[str, str], state: str, config: str | None,
) -> None:  # fmt: skip
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.chdir(tmp_path)
    assert options.state_directory(variables) == state.replace("CWD", str(tmp_path))
    assert options.config_file(variables) == config


def test_ssh_starts_the_program_with_what_config_ssh_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    program = app.find_program(Options("/s", "/c.toml"), {"XDG_CONFIG_HOME": "/x"})
    start = str(Path(app.__file__).parent / "start.py")
    assert program.words == ("/usr/bin/python3", "-I", "-S", start)
    assert Path(start).is_file()
    assert (program.state_directory, program.config_file, program.config_home) == (
        "/s", "/c.toml", "/x"
    )  # fmt: skip


def test_the_log_is_in_the_state_directory_and_may_be_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = Options(str(tmp_path))
    for value, is_written in (("off", False), ("", True)):
        app.open_log(options, {"DCS_PROXY_LOG": value}).event("said")
        assert (tmp_path / "log").exists() is is_written

    def fail(self: Options, environment: object) -> str:
        raise ConfigError("no home", hint="set HOME")

    monkeypatch.setattr(Options, "state_directory", fail)
    app.open_log(options, {}).event("lost")


def test_a_bug_is_reported_with_the_log_that_has_its_traceback(tmp_path: Path) -> None:
    options = Options(str(tmp_path))
    with pytest.raises(DcsError) as caught, app.explaining_bugs(options):
        raise ZeroDivisionError("a secret")
    assert caught.value.message == (
        "internal error (ZeroDivisionError); this is a bug in dcs-proxy"
    )
    assert caught.value.hint == f"report it with the last lines of {tmp_path}/log"
    assert caught.value.__suppress_context__
    log = (tmp_path / "log").read_text()
    assert "ZeroDivisionError" in log and "test_app.py" in log and "a secret" not in log
    with pytest.raises(ApiUnavailable), app.explaining_bugs(options):
        raise ApiUnavailable("down", hint="wait")


def test_a_package_that_does_not_work_is_no_bug_of_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcs_proxy.local.packages.why_unusable", lambda error: "no requests here")
    error = app.internal_error(ImportError("x"), app.open_log(Options(str(tmp_path)), {}))
    assert (type(error), error.message) == (ConfigError, "no requests here")
    assert error.hint == "install dcs-proxy again, then run dcs-proxy config-ssh"


@pytest.mark.parametrize("in_place", [True, False])
@pytest.mark.parametrize("wants_quiet", [True, False])
@pytest.mark.parametrize("by_ansible", [True, False])
def test_a_wake_is_shown_as_the_parent_wants(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    in_place: bool, wants_quiet: bool, by_ansible: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(app, "can_draw", lambda: in_place)
    monkeypatch.setattr(app, "wants_quiet", lambda pid: wants_quiet and pid == 7)
    monkeypatch.setattr(app, "is_run_by_ansible", lambda pid: by_ansible and pid == 7)
    monkeypatch.setattr(app, "find_advice", lambda *arguments: repr(arguments))
    progress = app._open_progress(7, {"a": "b"}, Settings(wake_seconds=9))
    progress.waking(MachineName("dm-foo"), 9)
    shown = capsys.readouterr().err
    is_shown = not wants_quiet and (in_place or not by_ansible)
    assert bool(shown) is is_shown
    if is_shown:
        first = "waking up, 0 s" if in_place else "(7, {'a': 'b'}, 9)"
        assert shown.splitlines()[0] == f"dcs-proxy: dm-foo: {first}"
    draw()


@pytest.mark.parametrize("agent", ["private", "user"])
def test_a_context_is_what_settings_and_options_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, agent: str
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(app.ApiFactory, "open", lambda self, deadline: opened.append(
        (self, deadline)) or "api")  # fmt: skip
    settings = Settings(base_url="https://a", org_id="o", wake_seconds=9, agent=agent)
    progress = Progress(is_quiet=True, in_place=False)
    credentials = Credentials("dsk-key", None, "")
    variables = {"SSH_AUTH_SOCK": "/my/agent"}
    context = app.open_context(
        Options(str(tmp_path)), variables, lambda: True,
        settings=settings, progress=progress, credentials=credentials,
    )  # fmt: skip
    assert context.settings is settings and context.progress is progress
    assert (context.state.path, context.log.path) == (str(tmp_path), f"{tmp_path}/log")
    assert (context.deadline.seconds, context.deadline.client_gone()) == (9, True)
    assert (context.account, context.parent) == ('["https://a", "o"]', os.getppid())
    kinds = {"private": PrivateAgents, "user": UserAgent}
    assert isinstance(context.agents, kinds[agent])
    private = PrivateAgents(str(tmp_path)).place
    assert context.agents.place == (private if agent == "private" else "/my/agent")
    assert opened == []
    assert [context.open_api(), context.open_api()] == ["api", "api"]
    ((factory, deadline),) = opened
    assert (factory.settings, factory.credentials) == (settings, credentials)
    assert (factory.notice, deadline) == (progress.notice, context.deadline)
    assert abs(context.now() - time.time()) < 60


def test_a_deadline_ticks_the_progress_and_settings_are_read_if_none_are_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "c.toml"
    config.write_text("wake_seconds = 77\n")
    ticks: list[str] = []
    progress = Progress(is_quiet=True, in_place=False)
    monkeypatch.setattr(progress, "tick", lambda: ticks.append("tick"))
    options = Options(str(tmp_path), str(config))
    context = app.open_context(options, {}, lambda: False, progress=progress)
    assert (context.settings.wake_seconds, context.deadline.seconds) == (77, 77)
    context.deadline.check()
    assert ticks == ["tick"]


@pytest.mark.parametrize("config", [None, "own.toml"])
def test_a_guest_behind_a_proxy_is_reached_through_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str | None
) -> None:
    waited: list[Any] = []
    monkeypatch.setattr("dcs_proxy.publish.guest.await_guest", lambda *a: waited.append(a))
    monkeypatch.setattr(sys, "executable", "/usr/bin/python3")
    monkeypatch.chdir(tmp_path)
    name, attempt = MachineName("dm-foo"), Attempt("k", "ab" * 32, "/a", 9.0, "account")
    ready = ReadySession("ssh.example", 2222, "me", "a", "", True, 9.0, 1.0, 1.0)
    variables = {"DCS_PROXY_CONFIG": "/env.toml"}
    main = str(Path(app.__file__).parent / "__main__.py")
    file = "/env.toml" if config is None else f"{tmp_path}/own.toml"
    for proxy, record, way in (
        (None, Record(attempt, ready), None),
        ("http://proxy.example:3128", Record(attempt), None),
        ("http://proxy.example:3128", Record(attempt, ready),
         ["/usr/bin/python3", "-I", main, "--home", f"{tmp_path}/s", "--config", file,
          "dial", "ssh.example", "2222"]),
    ):  # fmt: skip
        settings = Settings(proxy=None if proxy is None else parse_http_proxy(proxy))
        options = Options(f"{tmp_path}/s", config)
        context = app.open_context(options, variables, lambda: False, settings=settings)
        context.await_guest(name, record)
        *found, command = waited.pop()
        assert found == [context.state, name, record, context.deadline, context.log]
        assert (command and shlex.split(command)) == way


def test_a_lookup_asks_the_api_of_its_context(tmp_path: Path) -> None:
    asked: list[str] = []
    api = SimpleNamespace(list_machines=lambda: asked.append("list"))
    state = StateDirectory(str(tmp_path))
    context: Any = SimpleNamespace(
        state=state, account="account", settings=Settings(), open_api=lambda: api
    )
    assert app.open_lookup(context).find("c0de") == "dm-c0de"
    assert asked == ["list"]
    KnownMachines(state.path, "account").save_list([MachineId("dm-017f-c0de")])
    assert app.open_lookup(context).find("c0de") == "dm-017f-c0de"


@pytest.mark.parametrize(("config", "path"), [(None, "/env.toml"), ("/own.toml", "/own.toml")])
def test_a_fast_entry_names_the_config_file_as_the_ssh_config_does(
    tmp_path: Path, config: str | None, path: str
) -> None:
    state = StateDirectory(str(tmp_path))
    entry = app.open_fast_entry(
        Options(str(tmp_path), config), {"DCS_PROXY_CONFIG": "/env.toml"}, Settings(), state
    )
    assert (entry._config_path, entry._state) == (path, state)
