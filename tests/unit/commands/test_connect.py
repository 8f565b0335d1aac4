from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from dcs_proxy.app import Options
from dcs_proxy.bridge.choose import Way
from dcs_proxy.commands import connect
from dcs_proxy.errors import (
    ApiUnavailable,
    ClientGone,
    ConfigError,
    DcsError,
    LoginRefused,
    SessionFailed,
    UsageError,
)
from dcs_proxy.local.http_proxy import parse_http_proxy
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.openssh.parent import client_id
from dcs_proxy.publish.fast_entry import FastEntry
from dcs_proxy.session.context import Context
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.first_half import FirstHalf
from dcs_proxy.session.lookup import Lookup
from dcs_proxy.session.next_step import Half
from dcs_proxy.session.records import Attempt, ReadySession, Record
from tests.unit.commands.conftest import Commands

NAME = MachineName("dm-foo")
ATTEMPT = Attempt("k", "ab" * 32, "/agent.sock", 5000.0, "account", "wssh-1")
READY = ReadySession("ssh.example", 22, "me", "a", "", True, 5000.0, 1000.0, 2000.0)


def test_the_api_is_asked_about_a_session_whose_login_was_refused(tmp_path: Path) -> None:
    state, record = StateDirectory(str(tmp_path)), Record(ATTEMPT, READY)
    state.save(NAME, record)
    context: Any = SimpleNamespace(
        state=state, settings=Settings(reuse_seconds=60), now=lambda: 2010.0,
        log=Log(state.file("log")),
    )  # fmt: skip
    connect._doubt(NAME, record, context)
    loaded = state.load(NAME)
    assert loaded is not None and loaded.ready is not None
    assert loaded.ready.proved_at == 1950
    assert " login-refused machine=dm-foo session=wssh-1" in Path(state.file("log")).read_text()


def test_an_ssh_whose_session_has_ended_meanwhile_is_told(tmp_path: Path) -> None:
    state = StateDirectory(str(tmp_path))
    context: Any = SimpleNamespace(state=state, now=lambda: 4999.0)
    connect._check_not_ended(NAME, context)  # no session yet
    state.save(NAME, Record(ATTEMPT))
    connect._check_not_ended(NAME, context)  # none that is ready
    state.save(NAME, Record(ATTEMPT, replace(READY, began_at=4998.5)))
    connect._check_not_ended(NAME, context)
    context.now = lambda: 5000.0
    with pytest.raises(SessionFailed) as caught:
        connect._check_not_ended(NAME, context)
    assert caught.value.message == "the session lasted 1 s and ended before ssh could log in"


@pytest.mark.parametrize("port", ["", "ssh", "-1", "22x", " 22"])
def test_a_port_is_a_number(port: str) -> None:
    connect._check_port("22")
    with pytest.raises(UsageError, match="PORT must be a number"):
        connect._check_port(port)


@pytest.mark.parametrize(
    ("known_hosts", "login"),
    [("{state}/sessions/dm-foo.known_hosts", "me"), ("{state}/known_hosts", None), ("", None),
     ('"{state}/sessions/dm-foo.known_hosts"', "me"), ("{state}/sessions-old/x", None),
     ("/other/sessions/x", None)],
)  # fmt: skip
def test_an_ssh_that_has_read_a_sessions_files_has_its_login(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, known_hosts: str, login: str | None
) -> None:
    found = {"user": "me", "userknownhostsfile": known_hosts.format(state=tmp_path)}
    monkeypatch.setattr(connect, "ask_options", lambda pid: found if known_hosts else {})
    assert connect._login_in_block(Options(str(tmp_path))) == login


RECORD = Record(ATTEMPT, READY)
NO_FDPASS = "dcs-proxy: --fdpass needs a socket from ssh as stdin and stdout"


_NOTED = (
    "check_descriptors", "check_login", "_prove_gateway", "_check_speaks", "check_shell_is_silent",
    "hand_over", "send_disconnect", "_bridge",
)  # fmt: skip


class Stage:
    """What `connect` did, in order, with everything around it replaced."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
        self.done: list[Any] = []
        self.patch = monkeypatch.setattr
        self.way, self.first = Way.HANDOVER, b""
        self.has_spoken = self.checks_no_host = self.waits_too_long = self.is_discarded = False
        self.is_fdpass = self.is_known = True
        self.ours, self.theirs = socket.socketpair()
        self.options = Options(str(home))
        for name in ("has_spoken", "checks_no_host", "waits_too_long", "is_discarded", "is_fdpass",
                     "is_known"):  # fmt: skip
            self.patch(connect, name, lambda *_, name=name: getattr(self, name))
        self.patch(connect, "choose_way", lambda login: (self.way, self.first))
        for name in _NOTED:
            self.patch(connect, name, self.note(name))
        self.patch(connect, "become_relay", self.relay)
        self.patch(connect, "resolve_typed", self.resolve)
        self.patch(connect, "_dial", lambda record, context: self.ours)
        self.patch(connect, "address_of", lambda sock: "192.0.2.1")
        self.patch(connect, "publish", lambda *arguments: self.note("publish")(*arguments) or ["f"])
        self.patch(connect, "note_use", self.note("note_use"))
        self.patch(FastEntry, "write", lambda _, *a, **more: self.note("warm")(*a, **more))

    def note(self, name: str) -> Any:
        def call(*arguments: Any, **more: Any) -> None:
            shown = [a for a in arguments if isinstance(a, str | bytes | Record | list)]
            self.done.append((name, *shown, *sorted(more.items())))

        return call

    def names(self) -> list[str]:
        return [name for name, *_ in self.done]

    def resolve(self, typed: str, context: Any, lookup: Any, half: Any = None) -> Any:
        assert isinstance(context, Context) and isinstance(lookup, Lookup)
        self.done.append(("resolve", typed, half))
        return NAME, RECORD

    def relay(self, sock: socket.socket, host: str, home: str) -> None:
        self.done.append(("relay", host, self.theirs.recv(100, socket.MSG_DONTWAIT)))
        raise SystemExit(0)

    def run(self, host: str = "dm-foo", **more: Any) -> int:
        arguments = {"login": None, "fdpass": False, "relay": False, "bridge": False, "port": "22"}
        return connect.run(argparse.Namespace(host=host, **{**arguments, **more}), self.options)


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch, commands: Commands) -> Iterator[Stage]:
    found = Stage(monkeypatch, commands.home / "state")
    yield found
    found.ours.close()
    found.theirs.close()


def test_a_handover_publishes_checks_dials_and_passes_the_socket(stage: Stage) -> None:
    assert stage.run("'DM-Foo'", login="'me'") == 0
    assert stage.done == [
        ("check_descriptors", "dm-foo"),
        ("resolve", "dm-foo", Half.CONNECT),
        ("publish", "dm-foo", NAME, RECORD),
        ("check_login", "me", "dm-foo", RECORD, ("was_prepared", True)),
        ("note_use", f"{stage.options.home}/sessions/dm-foo.used"),
        ("warm", "dm-foo", RECORD, ["f"], ("address", "192.0.2.1")),
        ("hand_over",),
    ]
    log = (Path(stage.options.home or "") / "log").read_text()
    assert " connected machine=dm-foo session=wssh-1 fdpass=yes address=192.0.2.1 ms=" in log


@pytest.mark.parametrize("option", ["checks_no_host", "waits_too_long", "is_known"])
def test_each_question_about_ssh_has_its_consequence(stage: Stage, option: str) -> None:
    setattr(stage, option, option != "is_known")
    assert stage.run(login="me") == 0
    names = stage.names()
    assert ("_prove_gateway" in names) is (option == "checks_no_host")
    assert ("_check_speaks" in names) is (option == "waits_too_long")
    assert ("_prove_gateway", NAME, RECORD) in stage.done or option != "checks_no_host"
    (login,) = [call for call in stage.done if call[0] == "check_login"]
    assert login[-1] == ("was_prepared", option != "is_known")
    assert names[-1] == "hand_over"


@pytest.mark.parametrize("is_ssh", [True, False])
@pytest.mark.parametrize("login", [None, "me"])
def test_an_ssh_that_has_read_our_block_must_not_have_read_an_ended_session(
    stage: Stage, is_ssh: bool, login: str | None
) -> None:
    stage.patch(connect, "is_ssh", lambda pid: is_ssh and pid == os.getppid())
    stage.patch(connect, "refuse_host_name", stage.note("refuse_host_name"))
    stage.patch(connect, "_check_not_ended", lambda name, context: stage.done.append(
        ("_check_not_ended", name, isinstance(context, Context))))  # fmt: skip
    assert stage.run("dm-foo", login=login) == 0
    checks = [("refuse_host_name", "dm-foo"), ("_check_not_ended", "dm-foo", True)]
    assert stage.done[1:3] == checks or not (is_ssh and login)
    assert ("_check_not_ended" in stage.names()) is bool(is_ssh and login)


@pytest.mark.parametrize("in_block", [None, "me"])
def test_a_command_in_place_of_ours_in_the_block_has_the_blocks_login(
    monkeypatch: pytest.MonkeyPatch, in_block: str | None
) -> None:
    ways = {None: (Way.BRIDGE, b"SSH-2.0-x"), "me": (Way.HANDOVER, b"")}
    monkeypatch.setattr(connect, "choose_way", lambda login: ways[login])
    monkeypatch.setattr(connect, "_login_in_block", lambda options: in_block)
    arguments = argparse.Namespace(login=None, fdpass=False, relay=False, bridge=False)
    assert connect._choose(arguments, Options("/state")) == ways[in_block]
    assert arguments.login == in_block


@pytest.mark.parametrize("login", [None, "", "me"])
def test_any_login_of_ssh_is_checked(stage: Stage, login: str | None) -> None:
    stage.run(login=login)
    assert ("check_login" in stage.names()) is (login is not None)


def test_a_client_that_speaks_first_gets_the_bridge(stage: Stage) -> None:
    stage.has_spoken = True
    assert stage.run() is None
    assert stage.names() == ["check_descriptors", "resolve", "publish", "_bridge"]
    assert stage.done[-1] == ("_bridge", b""), "nothing was read"
    stage.done.clear()
    # With --fdpass it gets the socket all the same.
    assert stage.run(fdpass=True) == 0
    assert stage.names()[-1] == "hand_over"


@pytest.mark.parametrize(
    ("option", "way"), [("relay", Way.RELAY), ("bridge", Way.BRIDGE), ("fdpass", Way.HANDOVER)]
)
def test_an_option_forces_its_way(stage: Stage, option: str, way: Way) -> None:
    stage.way = Way.BRIDGE if way is not Way.BRIDGE else Way.RELAY
    arguments = argparse.Namespace(
        **{"login": None, "fdpass": False, "relay": False, "bridge": False, option: True}
    )
    assert connect._choose(arguments, Options("/state")) == (way, b"")
    arguments = argparse.Namespace(login="me", fdpass=False, relay=False, bridge=False)
    assert connect._choose(arguments, Options("/state")) == (stage.way, b"")


def test_a_relay_sends_what_was_read_to_choose_it(stage: Stage) -> None:
    stage.way, stage.first = Way.RELAY, b"SSH-2.0-OpenSSH_9.6\r\n"
    with pytest.raises(SystemExit):
        stage.run(login="me")
    assert stage.done[-1] == ("relay", "dm-foo", stage.first)
    # A gateway that has gone is found by the relay.
    stage.ours.close()
    stage.patch(connect, "become_relay", stage.note("relay"))
    stage.run(login="me")
    assert stage.done[-2][0] == "relay"


def test_fdpass_without_a_socket_is_refused_before_anything_is_done(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.is_fdpass = False
    with pytest.raises(UsageError, match="needs a socket from ssh"):
        stage.run(fdpass=True)
    assert stage.names() == ["check_descriptors", "send_disconnect"]
    first, hint = capsys.readouterr().err.splitlines()
    assert first == NO_FDPASS
    assert "write ProxyUseFdpass yes beside the ProxyCommand" in hint


def test_the_port_is_checked_on_every_way(stage: Stage) -> None:
    with pytest.raises(UsageError, match="PORT must be a number"):
        stage.run(port="ssh")
    assert stage.names() == ["check_descriptors", "send_disconnect"]


def fail(error: Exception) -> Any:
    def call(*_: Any, **__: Any) -> None:
        raise error

    return call


@pytest.mark.parametrize(
    ("way", "first", "is_discarded", "was_shown", "is_full"),
    [
        (Way.HANDOVER, b"", False, False, False),
        (Way.HANDOVER, b"", True, False, True),
        (Way.HANDOVER, b"", True, True, False),
        (Way.RELAY, b"SSH-2.0-OpenSSH_9.6", False, False, False),
        (Way.RELAY, b"SSH-2.0-AsyncSSH", False, False, True),
        (Way.RELAY, b"", False, True, True),
    ],
)
def test_an_error_reaches_the_user_by_stderr_or_in_full_by_ssh(
    stage: Stage, capsys: pytest.CaptureFixture[str],
    way: Way, first: bytes, is_discarded: bool, was_shown: bool, is_full: bool,
) -> None:  # fmt: skip
    error = ApiUnavailable("down", hint="wait")
    error.was_shown = was_shown
    stage.way, stage.first, stage.is_discarded = way, first, is_discarded
    stage.patch(connect, "resolve_typed", fail(error))
    with pytest.raises(ApiUnavailable) as caught:
        stage.run()
    text = (
        "dm-foo: down; hint: wait" if is_full
        else "dm-foo: not connected; the reason is shown above"
    )  # fmt: skip
    assert stage.done[-1] == ("send_disconnect", text, ("fdpass", way is Way.HANDOVER))
    shown = capsys.readouterr().err
    assert shown == ("" if was_shown else "dcs-proxy: dm-foo: down\ndcs-proxy: hint: wait\n")
    assert (caught.value.was_shown, caught.value.was_logged) == (True, True)


def test_a_bug_of_ours_reaches_the_user_as_well(
    stage: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    stage.patch(connect, "resolve_typed", fail(ZeroDivisionError()))
    with pytest.raises(DcsError, match=r"internal error \(ZeroDivisionError\)"):
        stage.run()
    assert stage.names()[-1] == "send_disconnect"
    assert "internal error" in capsys.readouterr().err


@pytest.mark.parametrize("is_fdpass", [True, False])
def test_an_ssh_that_has_gone_may_have_read_what_a_shell_printed(
    stage: Stage, is_fdpass: bool
) -> None:
    stage.is_fdpass = is_fdpass
    stage.patch(connect, "resolve_typed", fail(ClientGone("gone")))
    with pytest.raises(ClientGone):
        stage.run()
    assert ("check_shell_is_silent" in stage.names()) is is_fdpass
    assert "send_disconnect" not in stage.names()


def test_what_prepare_has_reported_is_not_tried_again(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = Path(stage.options.home or "") / "sessions"
    directory.mkdir(parents=True, mode=0o700)
    first = FirstHalf(str(stage.options.home), client_id(os.getppid()))
    first.save_failure(ApiUnavailable("down", machine="dm-foo"))
    with pytest.raises(ApiUnavailable, match="down"):
        stage.run()
    assert stage.done[1:] == [
        ("send_disconnect", "dm-foo: not connected; the reason is shown above", ("fdpass", True))
    ]
    assert list(directory.glob("*.failed")) == []


def test_a_use_that_cannot_be_noted_is_logged(stage: Stage) -> None:
    stage.patch(connect, "note_use", fail(OSError(28, "No space left on device")))
    assert stage.run() == 0
    log = (Path(stage.options.home or "") / "log").read_text()
    assert ' use-not-noted machine=dm-foo what="No space left on device"' in log


@pytest.mark.parametrize("proxy", [None, "http://proxy.example:3128"])
def test_the_gateway_is_dialled_within_the_limits(
    monkeypatch: pytest.MonkeyPatch, proxy: str | None
) -> None:
    calls = []
    monkeypatch.setattr(connect, "reach", lambda *a, **more: calls.append((*a, more)))
    through = None if proxy is None else parse_http_proxy(proxy)
    deadline = SimpleNamespace(at=123.0, client_gone=print)
    context: Any = SimpleNamespace(
        settings=Settings(proxy=through, connect_seconds=7), deadline=deadline
    )
    connect._dial(RECORD, context)
    assert calls == [
        (through, "ssh.example", 22, {"timeout_s": 7, "deadline": 123.0, "client_gone": print})
    ]
    with pytest.raises(ValueError, match="only a ready session"):
        connect._dial(Record(ATTEMPT), context)


def test_a_silent_gateway_is_dialled_again_with_the_same_limits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    monkeypatch.setattr(
        connect, "check_speaks", lambda sock, again, **m: calls.append((sock, again(), m))
    )
    monkeypatch.setattr(connect, "_dial", lambda *arguments: arguments)
    context: Any = SimpleNamespace(
        settings=Settings(connect_seconds=7), deadline=SimpleNamespace(client_gone=print)
    )
    sock: Any = object()
    connect._check_speaks(sock, RECORD, context)
    connect._check_speaks(sock, Record(ATTEMPT), context)
    assert calls == [
        (sock, (RECORD, context),
         {"where": "ssh.example:22", "timeout_s": 7, "client_gone": print})
    ]  # fmt: skip


def test_a_host_in_a_disconnect_message_is_safe_for_the_terminal() -> None:
    error = ApiUnavailable("down")
    error.was_shown = True
    text = connect._report(error, "dm-foo\x1b[2J", is_openssh=True)
    assert text == "dm-foo [2J: not connected; the reason is shown above"


class FakeBridge:
    """A bridge to a gateway that refuses the first `refusals` logins."""

    made: ClassVar[list[FakeBridge]] = []
    refusals = 0

    def __init__(self, host: str, state: StateDirectory, first: bytes) -> None:
        self.opened = (host, state.path, first)
        self.client_gone, self.progress, self.shows_reasons = lambda: False, None, True
        self.client_version = "SSH-2.0-x"
        self.failures: list[DcsError] = []
        self.logins: list[Any] = []
        FakeBridge.made.append(self)

    def log_in(self, sock: Any, login: Any) -> str:
        self.logins.append((sock, login))
        if len(self.logins) <= FakeBridge.refusals:
            raise LoginRefused("refused")
        return "gateway"

    def fail(self, error: DcsError) -> None:
        self.failures.append(error)

    def pass_on(self, gateway: Any) -> int:
        assert gateway == "gateway"
        return 3


@pytest.mark.parametrize("refusals", [0, 1, 2])
def test_a_login_that_is_refused_once_is_tried_with_a_confirmed_session(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, refusals: int
) -> None:
    import dcs_proxy.bridge.run

    state = commands.state
    state.save(NAME, RECORD)
    monkeypatch.setattr(dcs_proxy.bridge.run, "Bridge", FakeBridge)
    FakeBridge.made, FakeBridge.refusals = [], refusals
    halves = []
    monkeypatch.setattr(connect, "resolve_typed", lambda *a: halves.append(a[0]) or (NAME, RECORD))
    monkeypatch.setattr(connect, "_dial", lambda record, context: "socket")
    monkeypatch.setattr(connect, "address_of", lambda sock: "192.0.2.1")
    monkeypatch.setattr(connect, "login_of", lambda name, record, log: name)
    arguments = argparse.Namespace(host="dm-foo", port="22")
    options = Options(state.path)
    if refusals < 2:
        assert connect._bridge(arguments, options, b"first") == 3
    else:
        with pytest.raises(LoginRefused) as caught:
            connect._bridge(arguments, options, b"first")
        assert (caught.value.was_shown, caught.value.was_logged) == (True, True)
        assert caught.value.machine == "dm-foo"
    (bridge,) = FakeBridge.made
    assert bridge.opened == ("dm-foo", state.path, b"first")
    assert bridge.logins == [("socket", NAME)] * min(refusals + 1, 2)
    assert [str(error) for error in bridge.failures] == ["refused"] * (refusals == 2)
    assert halves == ["dm-foo"] * min(refusals + 1, 2)
    log = Path(state.file("log")).read_text()
    assert log.count(" login-refused machine=dm-foo session=wssh-1") == min(refusals, 1)
    bridged = " bridged machine=dm-foo session=wssh-1 client=SSH-2.0-x address=192.0.2.1 ms="
    assert (bridged in log) is (refusals < 2)


def test_a_port_that_is_none_is_an_error_for_the_bridge_too(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dcs_proxy.bridge.run

    monkeypatch.setattr(dcs_proxy.bridge.run, "Bridge", FakeBridge)
    FakeBridge.made = []
    with pytest.raises(UsageError):
        connect._bridge(
            argparse.Namespace(host="dm-foo", port="x"), Options(commands.state.path), b""
        )
    assert len(FakeBridge.made[0].failures) == 1


def test_a_bridge_whose_library_is_missing_says_so_to_the_client(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> None:
        raise ModuleNotFoundError("gone", name="paramiko")

    sent: list[str] = []
    monkeypatch.setattr(connect, "load_paramiko", fail)
    monkeypatch.setattr(connect, "read_line", lambda: b"SSH-2.0-mine\r\n")
    monkeypatch.setattr(connect, "send_disconnect", lambda text, *, fdpass: sent.append(text))
    arguments = argparse.Namespace(host="dm-foo", port="22")
    with pytest.raises(ConfigError):
        connect._bridge(arguments, Options(commands.state.path), b"")
    (text,) = sent
    assert "cannot import paramiko, which dcs-proxy needs" in text
    # It is not waited for if it has already sent something.
    monkeypatch.setattr(connect, "is_discarded", lambda: False)
    monkeypatch.setattr(connect, "read_line", lambda: pytest.fail("it waited for the client"))
    with pytest.raises(ConfigError):
        connect._bridge(arguments, Options(commands.state.path), b"SSH-2.0-OpenSSH_9.6\r\n")
    assert sent[1] == "dm-foo: not connected; the reason is shown above"


@pytest.mark.parametrize(
    ("host", "shown"), [("Web", "dm-web"), ("dm-foo", "dm-foo"), ("_", "HOST")]
)
def test_what_to_type_names_the_machine_if_there_can_be_one(
    stage: Stage, host: str, shown: str
) -> None:
    stage.way = Way.BRIDGE
    stage.first = b"SSH-2.0-x"
    stage.run(host)
    assert stage.done == [("check_descriptors", shown), ("_bridge", b"SSH-2.0-x")]


def test_a_gateway_is_not_proved_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connect, "load_paramiko", fail(ConfigError("no paramiko", hint="add it")))
    context: Any = SimpleNamespace()
    with pytest.raises(ConfigError, match="no paramiko"):
        connect._prove_gateway(NAME, RECORD, context)


def test_the_gateway_is_proved_over_a_connection_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import dcs_proxy.bridge.proof

    calls: list[Any] = []
    monkeypatch.setattr(connect, "_dial", lambda record, context: "socket")
    monkeypatch.setattr(connect, "login_of", lambda name, record, log: (name, record))
    monkeypatch.setattr(
        dcs_proxy.bridge.proof, "prove_gateway", lambda *a, **more: calls.append((*a, more))
    )
    context: Any = SimpleNamespace(
        settings=Settings(connect_seconds=7), deadline=SimpleNamespace(client_gone=print),
        log=Log(str(tmp_path / "log")),
    )  # fmt: skip
    connect._prove_gateway(NAME, RECORD, context)
    assert calls == [("socket", (NAME, RECORD), {"timeout_s": 7, "client_gone": print})]
    assert " gateway-proved machine=dm-foo session=wssh-1" in (tmp_path / "log").read_text()
