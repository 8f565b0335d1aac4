from __future__ import annotations

import argparse
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy import app
from dcs_proxy.app import Options
from dcs_proxy.commands import prepare
from dcs_proxy.errors import ApiUnavailable, ClientGone, DcsError, NotWoken
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.session.records import Attempt, Record
from tests.unit.commands.conftest import READY, Commands, Done

RECORD = Record(Attempt("k", "ab" * 32, "/agent.sock", 5000.0, "account", "wssh-1"), READY)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The hosts for which a session was made ready."""
    hosts: list[str] = []

    def note(host: str, options: Options, parent: int) -> int:
        hosts.append(host)
        return 0

    monkeypatch.setattr(prepare, "_prepare", note)
    monkeypatch.setattr(prepare, "wants_session", lambda pid: True)
    return hosts


@pytest.mark.parametrize("is_ssh", [True, False])
def test_a_host_is_prepared_in_lower_case(
    tmp_path: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch, is_ssh: bool
) -> None:
    monkeypatch.setattr(prepare, "is_ssh", lambda pid: is_ssh)
    assert prepare.run(argparse.Namespace(host="DM-Foo"), Options(str(tmp_path))) == 0
    assert prepared == ["dm-foo"]


def test_an_ssh_that_will_not_log_in_prepares_nothing(
    tmp_path: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "wants_session", lambda pid: False)
    assert prepare.run(argparse.Namespace(host="dm-foo"), Options(str(tmp_path))) == 0
    assert prepared == []


@pytest.mark.parametrize("is_known", [True, False])
def test_a_parent_that_is_not_known_may_only_show_its_options(
    tmp_path: Path, prepared: list[str], monkeypatch: pytest.MonkeyPatch, is_known: bool
) -> None:
    def refuse(host: str, options: Options, parent: int) -> int:
        raise NotWoken("asleep")

    monkeypatch.setattr(prepare, "_prepare", refuse)
    monkeypatch.setattr(prepare, "is_ssh", lambda pid: False)
    monkeypatch.setattr(prepare, "is_known", lambda pid: is_known)
    arguments = argparse.Namespace(host="dm-foo")
    if is_known:
        with pytest.raises(NotWoken):
            prepare.run(arguments, Options(str(tmp_path)))
    else:
        assert prepare.run(arguments, Options(str(tmp_path))) == 1


@pytest.mark.parametrize(
    ("error", "is_discarded", "is_saved"),
    [
        (ApiUnavailable("down"), False, True),
        (ApiUnavailable("down"), True, False),  # then the ProxyCommand has to tell it
        (ClientGone("gone"), False, False),
    ],
)
def test_the_second_half_repeats_an_error_that_the_user_has_seen(
    tmp_path: Path,
    prepared: list[str],
    monkeypatch: pytest.MonkeyPatch,
    error: DcsError,
    is_discarded: bool,
    is_saved: bool,
) -> None:
    def fail(host: str, options: Options, parent: int) -> int:
        raise error

    (tmp_path / "sessions").mkdir(mode=0o700)
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    monkeypatch.setattr(prepare, "_prepare", fail)
    monkeypatch.setattr(prepare, "is_ssh", lambda pid: True)
    monkeypatch.setattr(prepare, "is_discarded", lambda: is_discarded)
    with pytest.raises(type(error)):
        prepare.run(argparse.Namespace(host="dm-foo"), Options(str(tmp_path)))
    assert bool(list((tmp_path / "sessions").glob("*.failed"))) is is_saved


def test_a_host_that_ssh_did_not_expand_is_no_machine(tmp_path: Path, prepared: list[str]) -> None:
    assert prepare.run(argparse.Namespace(host="%h"), Options(str(tmp_path))) == 1
    assert prepared == []


def test_an_ssh_that_will_not_log_in_reads_no_broken_file(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prepare, "wants_session", lambda pid: False)
    broken = Path(commands.state.file("hosts", "dm-bar.conf"))
    broken.write_text("Host")
    assert commands("--home", commands.state.path, "prepare", "dm-foo") == Done(0, "", "")
    assert not broken.exists()


@dataclass
class Ready:
    """What `prepare` did for a session that is ready."""

    contexts: list[tuple[Any, ...]]
    published: list[tuple[Any, ...]]
    error: DcsError | None = None


@pytest.fixture
def ready(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> Ready:
    found = Ready([], [])

    def open_context(options: Any, environment: Any, gone: Any, *, settings: Settings) -> Any:
        found.contexts.append((gone, settings))
        return app.open_context(options, environment, gone, settings=settings)

    def resolve(typed: str, context: Any, lookup: Any) -> Any:
        if found.error is not None:
            raise found.error
        return MachineName("dm-foo"), RECORD

    def publish(hosts: Any, name: str, record: Any, context: Any, fast: Any, **more: Any) -> None:
        found.published.append((hosts, name, record, more))

    for name, value in {
        "open_context": open_context, "resolve_typed": resolve, "publish_session": publish,
        "first_address": lambda record, context: "192.0.2.1", "wants_session": lambda pid: True,
        "is_known": lambda pid: True, "is_ssh": lambda pid: True, "refuse_bypass": lambda *_: None,
        "typed_login": lambda pid: None, "is_discarded": lambda: False,
    }.items():  # fmt: skip
        monkeypatch.setattr(prepare, name, value)
    return found


def test_what_ssh_includes_is_written_for_the_name_that_was_typed(
    commands: Commands, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/my/agent")
    broken = Path(commands.state.file("hosts", "dm-bar.conf"))
    broken.write_text("Host")
    ways = []
    monkeypatch.setattr(prepare, "refuse_bypass", lambda *a: ways.append(a))
    assert commands("--home", commands.state.path, "prepare", "DM-Web") == Done(0, "", "")
    assert ready.published == [
        (["dm-web"], "dm-foo", RECORD, {"user_agent": "/my/agent", "address": "192.0.2.1"})
    ]
    assert ways == [(os.getppid(), "dm-web")]
    assert not broken.exists()
    log = Path(commands.state.file("log")).read_text()
    assert " prepared machine=dm-foo session=wssh-1 ms=" in log


@pytest.mark.parametrize(
    ("is_known", "login", "logins", "may_wake"),
    [
        (True, None, [], True),
        (False, None, [], False),
        (True, "root", [], False),
        (True, "root", ["root"], True),
        (False, "root", ["root"], False),
        (True, "", ["root"], False),
    ],
)
def test_only_an_ssh_that_can_log_in_wakes_the_machine(
    commands: Commands, ready: Ready, monkeypatch: pytest.MonkeyPatch,
    is_known: bool, login: str | None, logins: list[str], may_wake: bool,
) -> None:  # fmt: skip
    monkeypatch.setattr(prepare, "is_known", lambda pid: is_known)
    monkeypatch.setattr(prepare, "typed_login", lambda pid: login)
    for name in logins:
        commands.save("dm-other", ready=replace(READY, ssh_username=name))
    assert commands("prepare", "dm-foo").code == 0
    ((gone, settings),) = ready.contexts
    policy = settings.wake_policy(MachineName("dm-foo"))
    assert policy == ("always" if may_wake else "never")
    assert gone() is False
    monkeypatch.setattr(os, "getppid", lambda: 1)
    assert gone() is True


@pytest.mark.parametrize(
    ("login", "logins", "code", "said"),
    [
        ("root", [], 16, "dm-foo: ssh is about to log in as root, but only the session's own login "
                         "works; the machine was not woken"),
        (None, [], 17, "dm-foo: asleep"),
        ("me", ["me"], 17, "dm-foo: asleep"),
    ],
)  # fmt: skip
def test_a_machine_that_is_not_woken_for_a_login_is_said_so(
    commands: Commands, ready: Ready, monkeypatch: pytest.MonkeyPatch,
    login: str | None, logins: list[str], code: int, said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(prepare, "typed_login", lambda pid: login)
    for name in logins:
        commands.save("dm-other", ready=replace(READY, ssh_username=name))
    ready.error = NotWoken("asleep", hint="wake it")
    done = commands("prepare", "dm-foo")
    assert (done.code, done.err.splitlines()[0]) == (code, f"dcs-proxy: {said}")
    assert ready.published == []


def test_an_error_of_a_half_that_ran_just_now_is_not_tried_again(
    commands: Commands, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.error = ApiUnavailable("down", hint="wait")
    assert commands("prepare", "dm-foo").err == "dcs-proxy: dm-foo: down\ndcs-proxy: hint: wait\n"
    ready.contexts.clear()
    done = commands("prepare", "dm-foo")
    assert (done.code, done.err, ready.contexts) == (ApiUnavailable.exit_code, "", [])
    # It stays for the ProxyCommand, which comes last.
    assert len(list(Path(commands.state.file("sessions")).glob("*.failed"))) == 1


def test_a_bug_of_ours_is_saved_for_the_second_half(
    commands: Commands, ready: Ready, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise ZeroDivisionError

    commands.state.machines()
    monkeypatch.setattr(prepare, "resolve_typed", fail)
    assert "internal error (ZeroDivisionError)" in commands("prepare", "dm-foo").err
    assert len(list(Path(commands.state.file("sessions")).glob("*.failed"))) == 1


@pytest.mark.parametrize("is_discarded", [False, True])
@pytest.mark.parametrize("error", [ApiUnavailable("down"), ZeroDivisionError(), ClientGone("gone")])
def test_after_a_failure_the_second_half_has_no_fast_path(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, ready: Ready,
    error: Exception, is_discarded: bool,
) -> None:  # fmt: skip
    """A fast connection would be one that ssh, without what `prepare` writes, cannot verify."""

    def fail(*_: object) -> None:
        raise error

    commands.state.machines()
    entry = Path(commands.state.file("sessions", "dm-foo.warm"))
    entry.write_text("entry")
    monkeypatch.setattr(prepare, "resolve_typed", fail)
    monkeypatch.setattr(prepare, "is_discarded", lambda: is_discarded)
    assert commands("prepare", "DM-Foo").code != 0
    assert entry.exists() is isinstance(error, ClientGone)


@pytest.mark.parametrize("fd", [None, 0, 1])
def test_a_person_reads_what_to_type_next(
    commands: Commands, ready: Ready, monkeypatch: pytest.MonkeyPatch, fd: int | None
) -> None:
    monkeypatch.setattr(os, "isatty", lambda number: number == fd)
    said = "dcs-proxy: dm-foo: ready; ssh runs this command by itself, so type: ssh dm-foo\n"
    assert commands("prepare", "dm-web").err == ("" if fd is None else said)


@pytest.mark.parametrize("is_ssh", [True, False])
def test_an_error_names_the_machine_whoever_has_asked(
    commands: Commands, ready: Ready, monkeypatch: pytest.MonkeyPatch, is_ssh: bool
) -> None:
    monkeypatch.setattr(prepare, "is_ssh", lambda pid: is_ssh)
    ready.error = ApiUnavailable("down", hint="wait")
    assert commands("prepare", "DM-Foo").err.splitlines()[0] == "dcs-proxy: dm-foo: down"
