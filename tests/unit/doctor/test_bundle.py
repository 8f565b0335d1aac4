from __future__ import annotations

import os
import platform
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from dcs_proxy import __version__
from dcs_proxy.app import Options
from dcs_proxy.doctor import bundle
from dcs_proxy.doctor.bundle import render_bundle
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import Check
from dcs_proxy.errors import StateError, UsageError
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import NO_MACHINE, Program, render_end, render_top
from dcs_proxy.openssh.version import Client, Version
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Attempt, ReadySession, Record, render
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.support.fake_agent import Store, fake_agent, framed, socket_directory


@pytest.mark.parametrize("name", ["DEDALUS_BASE_URL", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_the_shortest_password_in_a_url_is_masked(tmp_path: Path, name: str) -> None:
    # It is too short to be looked for, and has a slash in it.
    environment = {"HOME": str(tmp_path), name: "http://x/@proxy.example:3128"}
    options = Options(str(tmp_path / "state"))
    context = Context(options, environment, str(tmp_path / "config"), False, None)
    lines = render_bundle(context, []).splitlines()
    assert f"{name}='http://[masked]@proxy.example:3128'" in lines


@pytest.mark.parametrize("host", [None, "dm-foo"])
def test_the_options_are_those_of_the_machine_that_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str | None
) -> None:
    options = Options(str(tmp_path / "state"))
    context = Context(options, {"HOME": str(tmp_path)}, str(tmp_path / "config"), False, host)
    context.ssh = Client("/usr/bin/ssh", "OpenSSH_9.2p1", Version(9, 2))
    monkeypatch.setattr(context, "read_options", lambda host: ({"host": [host]}, "warned\n"))
    lines = render_bundle(context, []).splitlines()
    at = lines.index("== ssh -G ==")
    assert lines[at + 1 : at + 3] == ["warned", f"host {host or NO_MACHINE}"]


VARIABLES = (
    "DEDALUS_BASE_URL", "DEDALUS_ORG_ID", "DCS_PROXY_HOME", "DCS_PROXY_CONFIG", "DCS_PROXY_LOG",
    "DCS_PROXY_KEY_FILE", "HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY",
    "all_proxy", "NO_PROXY",
    "no_proxy", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSH_AUTH_SOCK",
    "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR", "HOME", "PATH", "LANG", "LC_ALL", "TERM",
)  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> Context:
    return Context(Options(str(tmp_path / "s")), {}, str(tmp_path / "config"), False, None)


def part(context: Context, title: str, checks: Sequence[Check] = ()) -> list[str]:
    """The lines of one part of the file."""
    text = render_bundle(context, checks)
    assert text.startswith("dcs-proxy doctor --bundle: secrets are masked; read it before you send")
    (found,) = [each for each in text.split("\n\n") if each.splitlines()[0] == f"== {title} =="]
    return found.splitlines()[1:]


def test_the_parts_are_what_a_bug_report_needs(context: Context) -> None:
    lines = render_bundle(context, []).splitlines()
    assert [line for line in lines if line.startswith("==")] == [
        f"== {title} ==" for title in ("versions", "checks", "environment", "settings", "sessions",
                                       "agent", "block", "ssh -G", "log")
    ]  # fmt: skip


def test_versions_and_checks_are_those_of_this_run(context: Context) -> None:
    python = f"Python {platform.python_version()}, {platform.platform()}"
    assert part(context, "versions") == [f"dcs-proxy {__version__}", python]
    context.ssh = Client("/usr/bin/ssh", "OpenSSH_9.2p1", Version(9, 2))
    assert part(context, "versions")[2:] == ["OpenSSH_9.2p1"]
    checks = [Check("one", True, "fine", seconds=0.5), Check("two", False, "bad", "mend it", 12),
              Check("three", None, "skipped: needs two")]  # fmt: skip
    assert part(context, "checks", checks) == [
        "ok      one: fine (0.500 s)", "failed  two: bad (12.000 s)", "        hint: mend it",
        "skipped three: skipped: needs two (0.000 s)",
    ]  # fmt: skip


def test_variables_are_shown_but_keys_are_not(context: Context) -> None:
    environment = {name: f"value of {name}" for name in VARIABLES}
    context.environment = {**environment, "DEDALUS_API_KEY": "dsk-secret", "OTHER": "hidden",
                           "PATH": "/x:dsk-secret"}  # fmt: skip
    lines = part(context, "environment")
    assert lines[:2] == ["DEDALUS_API_KEY set", "DEDALUS_X_API_KEY not set"]
    assert [line.partition("=")[0] for line in lines[2:]] == list(VARIABLES)
    assert "HOME='value of HOME'" in lines and "PATH='/x:[masked]'" in lines
    assert not any("dsk-secret" in line or "OTHER" in line for line in lines)


def test_settings_and_sessions_are_shown_once_they_are_known(context: Context) -> None:
    assert (part(context, "settings"), part(context, "sessions"), part(context, "agent")) == (
        [], [], []
    )  # fmt: skip
    context.settings = Settings(wake_seconds=77)
    assert "wake_seconds = 77" in part(context, "settings")
    context.state = state = StateDirectory(context.options.state_directory({}))
    attempt = Attempt("k", "ab" * 32, "/a", 2000.4, "account", "wssh-1")
    ready = ReadySession("ssh.example", 2222, "me", "a", "", True, 3000.6, 1.0, 1.0)
    state.save(MachineName("dm-b"), Record(attempt, ready))
    state.save(MachineName("dm-a"), Record(attempt))
    Path(state.file("sessions", "dm-c.json")).write_text("damaged")
    Path(state.file("sessions", "dm-d.other")).write_bytes(render(Record(attempt)))
    assert part(context, "sessions") == [
        "dm-a.json wssh-1 not ready until 2000",
        "dm-b.json wssh-1 me@ssh.example:2222 until 3001",
    ]


def test_agents_tell_what_they_hold_or_why_not(context: Context) -> None:
    with socket_directory() as home, fake_agent() as one, fake_agent() as two, fake_agent() as bad:
        context.state = StateDirectory(home)
        place = PrivateAgents(home)
        one.answer = store = Store()
        store.held = {b"blob": b"dm-foo via ssh.example", b"longer": b"dm-bar"}
        two.answer, bad.answer = framed(b"\x05"), framed(b"")
        for number, agent in enumerate((one, two, bad), 1):
            os.link(agent.path, place.path(number))
        lines = part(context, "agent")
    assert lines[:2] == [
        "agent-1.sock: 4 bytes, dm-foo via ssh.example", "agent-1.sock: 6 bytes, dm-bar"
    ]  # fmt: skip
    assert [line.partition(":")[0] for line in lines[2:]] == ["agent-2.sock", "agent-3.sock"]


def test_a_report_creates_no_directory_for_agents(context: Context) -> None:
    context.state = StateDirectory(context.options.state_directory({}))
    assert part(context, "agent") == []
    assert not os.path.exists(context.state.file("sockets"))


def test_a_block_of_any_bytes_is_shown(context: Context, tmp_path: Path) -> None:
    block = config_file.install(b"", "Host dm-\udcff\n", "Host *\n")
    (tmp_path / "config").write_bytes(block)
    assert "Host dm-\ufffd" in part(context, "block")


def test_the_block_is_shown_and_what_is_missing_is_said(context: Context, tmp_path: Path) -> None:
    assert part(context, "block") == ["(none)", "(none)"]
    program, version = Program(("/usr/bin/python3",), "/state"), Version(9, 2)
    top, end = render_top(program, [], version), render_end(program, version)
    (tmp_path / "config").write_bytes(config_file.install(b"Host private\n", top, end))
    assert part(context, "block") == [*top.splitlines(), *end.splitlines()]
    (tmp_path / "config").write_bytes(b"# >>> dcs-proxy")
    assert "hint: " in part(context, "block")[0]
    assert part(context, "ssh -G") == [
        "ssh cannot be run; hint: install the OpenSSH client"
    ]  # fmt: skip


def test_a_part_that_fails_does_not_hide_the_others(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(context: Context) -> list[str]:
        raise ZeroDivisionError

    monkeypatch.setattr(bundle, "_agent", fail)
    (line,) = part(context, "agent")
    assert line.startswith("internal error (ZeroDivisionError)")
    assert part(context, "block") == ["(none)", "(none)"]


@pytest.mark.parametrize(
    ("option", "value", "shown"),
    [
        *((name, "secret", "[masked]") for name in
          ("setenv", "localcommand", "remotecommand", "knownhostscommand", "pkcs11provider")),
        ("proxycommand", "nc --proxy-auth me:secret", "nc [masked]"),
        ("proxycommand", "/bin/sh STATE/launcher '%h'", "/bin/sh STATE/launcher '%h'"),
        ("user", "me", "me"),
    ],
)  # fmt: skip
def test_options_of_the_users_own_that_may_be_secret_are_masked(
    context: Context, monkeypatch: pytest.MonkeyPatch, option: str, value: str, shown: str
) -> None:
    state = context.options.state_directory({})
    context.ssh = Client("/usr/bin/ssh", "OpenSSH_9.2p1", Version(9, 2))
    options = {option: [value.replace("STATE", state), "b"], "port": ["22"]}
    monkeypatch.setattr(context, "read_options", lambda host: (options, ""))
    lines = part(context, "ssh -G")
    assert lines[0] == f"{option} {shown.replace('STATE', state)}"
    assert len(lines) == 3 and lines[2] == "port 22"


def test_the_log_is_shown_from_its_end(context: Context) -> None:
    StateDirectory(context.options.state_directory({}))
    Path(context.log.path).write_text("".join(f"line {number}\n" for number in range(5000)))
    lines = part(context, "log")
    assert lines[-1] == "line 4999" and len(lines) == bundle._LOG_LINES


def test_the_file_is_private_and_replaces_none(
    context: Context, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context.environment = {"DEDALUS_API_KEY": "dsk-secret"}
    monkeypatch.setattr(bundle, "_agent", lambda context: ["Bearer abc", "a\x1b[31m dsk-secret"])
    path = tmp_path / "report.txt"
    bundle.check_bundle_path(str(path))
    bundle.write_bundle(str(path), context, [])
    text = path.read_text()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "\nBearer [masked]\na?[31m [masked]\n" in text
    for write in (lambda: bundle.write_bundle(str(path), context, []),
                  lambda: bundle.check_bundle_path(str(path))):  # fmt: skip
        with pytest.raises(UsageError, match="already exists") as caught:
            write()
        assert caught.value.hint == "choose another name"
    assert path.read_text() == text
    # A link to nowhere is a file of the user's, too.
    (tmp_path / "link").symlink_to(tmp_path / "other")
    with pytest.raises(UsageError, match="already exists"):
        bundle.write_bundle(str(tmp_path / "link"), context, [])
    with pytest.raises(StateError):
        bundle.write_bundle(str(tmp_path / "none" / "report.txt"), context, [])
