from __future__ import annotations

import contextlib
import io
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcs_proxy.local.programs import Output
from dcs_proxy.openssh import parent
from dcs_proxy.openssh.parent import (
    client_id,
    connect_timeout,
    find_bypass,
    is_known,
    is_ssh,
    log_level,
    login_name,
    parse_options,
    typed_login,
    wants_quiet,
    wants_session,
)
from tests.support.waiting import LIMIT_S, wait_until


@pytest.mark.parametrize(
    ("line", "letters"),
    [
        ("dm-foo", ""),
        ("-G dm-foo", "G"),
        ("dm-foo -G", "G"),
        ("dm-foo ls -G", ""),
        ("-v -T -D 8080 -o ConnectTimeout=15 dm-foo bash -O extglob", "vTDo"),
        ("-oControlPath=none -vvG dm-foo", "ovvG"),
        ("-p22 dm-foo", "p"),
        ("-p 22 dm-foo -O check", "pO"),
        ("-l -G dm-foo", "l"),
        ("-- dm-foo -G", ""),
        ("dm-foo -- ls -G", ""),
        ("-O check dm-foo", "O"),
        ("- ls -G", ""),
        ("-v -- dm-foo -G", "v"),
        ("", ""),
    ],
)
def test_options_are_told_from_the_command(line: str, letters: str) -> None:
    assert "".join(letter for letter, _ in parse_options(line.split())) == letters


# The getopt string of ssh.c in OpenSSH 10.0.
OPENSSH_10 = "1246ab:c:e:fgi:kl:m:no:p:qstvxAB:CD:E:F:GI:J:KL:MNO:P:Q:R:S:TVw:W:XYy"


@pytest.mark.parametrize(("letter", "colon"), re.findall("([0-9A-Za-z])(:?)", OPENSSH_10))
def test_the_word_after_an_option_is_its_argument_or_the_host(letter: str, colon: str) -> None:
    found = parse_options([f"-{letter}", "-G", "dm-foo"])
    assert found == [*([(letter, "-G")] if colon else [(letter, ""), ("G", "")]), ("", "dm-foo")]


@pytest.mark.parametrize(
    ("words", "login"),
    [
        (["dm-foo"], None),
        (["dm-foo", "ls", "-l", "me"], None),
        (["me@dm-foo"], "me"),
        (["me@you@dm-foo"], "me@you"),
        (["ssh://me@dm-foo:22"], "me"),
        (["--", "me@dm-foo"], "me"),
        (["-v", "--", "dm-foo", "me@other"], None),
        (["dm-foo", "-l", "me"], "me"),
        (["-lme", "you@dm-foo"], "me"),
        (["me@dm-foo", "-l", "you"], "me"),
        (["-l", "", "dm-foo"], ""),
        (["-o", "User=me", "-l", "you", "dm-foo"], "me"),
        (["-ouser me", "dm-foo"], "me"),
        (["-o", 'User "a b"', "dm-foo"], "a b"),
        (["-o", "UserKnownHostsFile=me", "dm-foo"], None),
        (["--"], None),
        ([], None),
    ],
)
def test_the_first_login_name_counts(words: list[str], login: str | None) -> None:
    assert login_name(parse_options(words)) == login


@pytest.mark.parametrize(
    ("words", "host"),
    [
        (["dm-foo"], "dm-foo"),
        (["-o", "HostName=dm-bar", "me@DM-Foo.", "dm-baz"], "dm-foo"),
        (["ssh://me@dm-foo:22/"], "dm-foo"),
        (["ssh://DM-foo./"], "dm-foo"),
        (["me@you@dm-foo"], "dm-foo"),
        (["-W", "dm-bar:22", "--", "dm-foo"], "dm-foo"),
        (["web:22"], "web:22"),
        (["-V"], None),
    ],
)
def test_the_host_is_the_destination_without_what_surrounds_it(
    monkeypatch: pytest.MonkeyPatch, words: list[str], host: str | None
) -> None:
    monkeypatch.setattr(parent, "_command_line", lambda pid: ["/usr/bin/ssh", *words])
    assert parent.typed_host(7) == host


@pytest.mark.parametrize(
    ("words", "way"),
    [
        (["dm-foo"], None),
        (["-J", "hop", "dm-foo"], "hop"),
        (["dm-foo", "-J", "hop"], "hop"),
        (["dm-foo", "tar", "-J", "x"], None),
        (["-vJhop,dm-bar", "dm-foo"], "hop,dm-bar"),
        (["-o", "ProxyJump=me@hop:22", "dm-foo"], "me@hop:22"),
        (["-oproxyjump hop", "dm-foo"], "hop"),
        (["-o", 'ProxyJump = "hop"', "dm-foo"], "hop"),
        # ssh then uses the ProxyCommand of the config.
        (["-J", "none", "dm-foo"], None),
        (["-o", "ProxyJump=None", "-J", "hop", "dm-foo"], None),
        # The user's own way to the gateway.
        (["-o", "ProxyCommand=ssh -W gw:22 hop", "dm-foo"], None),
        (["-o", "ProxyCommand=ssh -W gw:22 hop", "-o", "ProxyJump=hop", "dm-foo"], None),
        (["-o", "ProxyCommand=none", "dm-foo"], ""),
        (["-o", "proxycommand none", "-J", "hop", "dm-foo"], ""),
        (["-o", "HostKeyAlias=gw", "-J", "hop", "dm-foo"], "hop"),
        (["-J"], ""),
    ],
)
def test_a_way_that_replaces_ours_and_leads_nowhere_is_seen(
    words: list[str], way: str | None
) -> None:
    assert find_bypass(parse_options(words)) == way


ASKED = b"user me\nhostname dm-foo\nidentityfile /a\nidentityfile /b c\n"


@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["-o", "ProxyCommand=dcs-proxy %h %p", "dm-foo", "ls", "-l"],
         ["-oProxyCommand=dcs-proxy %h %p", "--", "dm-foo"]),
        (["-F", "a b", "-NfvL1:x:2", "-oproxycommand x", "-p22", "-l", "me", "-E", "log", "dm-foo"],
         ["-Fa b", "-oproxycommand x", "-p22", "-lme", "--", "dm-foo"]),
        (["-F", "x", "dm-foo"], None),
        (["dm-foo", "-o", "User=ProxyCommand"], None),
        (["-l", "ProxyCommand=x", "dm-foo"], None),
        ([], None),
    ],
)  # fmt: skip
def test_ssh_itself_is_asked_which_options_it_has_read(
    monkeypatch: pytest.MonkeyPatch, words: list[str], asked: list[str] | None
) -> None:
    seen: list[list[str]] = []

    def run(command: list[str], **options: object) -> Output:
        assert options == {"environment": os.environ, "limit_s": 10.0}
        seen.append(command)
        return Output(0, ASKED, b"", False)

    monkeypatch.setattr(parent, "_arguments", lambda pid: words)
    monkeypatch.setattr(parent, "run", run)
    options = parent.ask_options(os.getpid())
    if asked is None:
        assert (options, seen) == ({}, [])
        return
    assert options == {"user": "me", "hostname": "dm-foo", "identityfile": "/b c"}
    assert seen == [[os.path.realpath(sys.executable), "-G", *asked]]


def test_without_proc_the_ssh_on_the_path_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    programs: list[str] = []

    def run(command: list[str], **_: object) -> Output:
        programs.append(command[0])
        raise FileNotFoundError

    def fail(_: str) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(parent, "_arguments", lambda pid: ["-oProxyCommand=x", "dm-foo"])
    monkeypatch.setattr(parent, "run", run)
    monkeypatch.setattr(os, "readlink", fail)
    for found in ("/opt/ssh", None):
        monkeypatch.setattr(parent, "find_program", lambda *_, found=found: found)
        assert parent.ask_options(os.getpid()) == {}
    assert programs == ["/opt/ssh", ""]


def test_what_follows_the_end_of_options_is_one_host() -> None:
    assert parse_options(["-v", "--", "dm-foo", "ls"]) == [("v", ""), ("", "dm-foo")]


@pytest.mark.parametrize("failure", [OSError(), TimeoutError(), Output(255, ASKED, b"", False)])
def test_an_ssh_that_does_not_say_its_options_has_none(
    monkeypatch: pytest.MonkeyPatch, failure: Exception | Output
) -> None:
    def run(command: list[str], **_: object) -> Output:
        if isinstance(failure, Output):
            return failure
        raise failure

    monkeypatch.setattr(parent, "_arguments", lambda pid: ["-oProxyCommand=x", "dm-foo"])
    monkeypatch.setattr(parent, "run", run)
    assert parent.ask_options(os.getpid()) == {}


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ("dm-foo", ""),
        ("-q dm-foo", "quiet"),
        ("dm-foo -q", "quiet"),
        ("dm-foo ls -q", ""),
        ("-Tq -p 22 dm-foo", "quiet"),
        ("-l q dm-foo", ""),
        ("-oLogLevel=ERROR dm-foo", "error"),
        ("-o loglevel=Quiet dm-foo", "quiet"),
        ('-o LogLevel="FATAL" dm-foo', "fatal"),
        ("-o LogLevel=DEBUG3 dm-foo", "debug3"),
        ("-o LogLevel=INFO -o LogLevel=QUIET dm-foo", "info"),
        ("-q -o LogLevel=INFO dm-foo", "quiet"),
        ("-o LogLevel=INFO -q dm-foo", "quiet"),
        ("-q -v dm-foo", "debug"),
        ("-v -q dm-foo", "quiet"),
        ("-o LogLevelX=QUIET -o dm-foo", ""),
        ("-o", ""),
    ],
)
def test_the_level_is_that_of_the_command_line(line: str, level: str) -> None:
    assert log_level(parse_options(line.split())) == level


def test_a_level_after_a_space_is_read_too() -> None:
    assert log_level(parse_options(["-o", "LogLevel QUIET", "dm-foo"])) == "quiet"


def test_a_process_has_one_identity_for_its_life() -> None:
    mine = client_id(os.getpid())
    assert mine == client_id(os.getpid())
    assert mine.startswith(f"{os.getpid()}:")
    assert client_id(os.getppid()) != mine


def test_a_process_is_known_by_its_start_whatever_its_name(tmp_path: Path) -> None:
    program = tmp_path / "a) b c"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"]) as process:
        pid, _, started = client_id(process.pid).partition(":")
        up_s = float(Path("/proc/uptime").read_text().split()[0])
        process.kill()
    assert pid == str(process.pid)
    # proc(5): in clock ticks after the boot.
    assert 0 <= up_s - int(started) / os.sysconf("SC_CLK_TCK") < LIMIT_S
    assert client_id(2**22 + 1) == f"{2**22 + 1}:"


def test_the_command_line_of_an_ssh_is_read() -> None:
    words = ["-v", "-l", "me", "-o", "LogLevel=x", "-o", "ConnectTimeout=7", "-oConnectTimeout=9"]
    with running("/opt/bin/ssh", *words, "dm-foo", os.fsdecode(b"\xff")) as pid:
        assert typed_login(pid) == "me" and connect_timeout(pid) == 7
        assert parent._arguments(pid)[2:5] == words[:3], "after those of the shell that it is"
        assert parse_options(words)[0] == ("v", "")
    with running("/opt/bin/ssh", "dm-foo", "-W", "ConnectTimeout=7") as pid:
        assert typed_login(pid) is None and connect_timeout(pid) is None


def test_a_program_whose_file_is_not_told_goes_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> str:
        raise PermissionError(path)

    monkeypatch.setattr(os, "readlink", fail)
    with running("/opt/bin/other", "-G") as pid:
        assert not is_ssh(pid)


def test_who_is_no_ssh_wants_a_session() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", "input()", "-G"], stdin=subprocess.PIPE
    ) as process:
        assert wants_session(process.pid) and not wants_quiet(process.pid)
        process.communicate(b"\n")
    assert wants_session(2**22 + 1)


@pytest.mark.parametrize("name", ["ssh", "ssh.real", "ssh-10.0", ".ssh-wrapped", "openssh"])
@pytest.mark.parametrize("has_proc", [True, False])
def test_an_ssh_under_another_name_is_one(
    name: str, has_proc: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not has_proc:
        hide_proc(monkeypatch)
    with running(f"/opt/bin/{name}", "-G", "dm-foo") as pid:
        assert is_known(pid) and is_ssh(pid) and not wants_session(pid)
    with running(f"/opt/bin/{name}", "-q", "dm-foo", "ls", "-G") as pid:
        assert is_ssh(pid) and wants_session(pid) and wants_quiet(pid)


@pytest.mark.parametrize("name", ["sshd", "ssh-agent", "sshfs", "python3", "-bash", "asyncsshx"])
def test_another_program_is_no_ssh(name: str) -> None:
    with running(name, "-G", "dm-foo") as pid:
        assert is_known(pid) and not is_ssh(pid) and wants_session(pid)


def test_a_program_that_calls_itself_otherwise_is_known_by_its_file(tmp_path: Path) -> None:
    copy = tmp_path / "ssh-copy"
    shutil.copy(shutil.which("sleep") or "", copy)
    with subprocess.Popen(["login", "60"], executable=copy) as process:
        try:
            wait_for_arguments(process.pid)
            assert is_ssh(process.pid)
        finally:
            process.kill()


def test_where_nothing_tells_the_command_line_it_is_unknown(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide_proc(monkeypatch)
    assert not is_known(2**22 + 1)
    failing = tmp_path / "ps"
    failing.write_text("#!/bin/sh\nexit 1\n")
    failing.chmod(0o700)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert not is_known(os.getpid())
    failing.write_text("#!/bin/sh\nsleep 60\n")
    monkeypatch.setattr(parent, "_PS_S", 0.1)
    parent._ask_ps.cache_clear()
    assert not is_known(os.getpid()), "it is not waited for"


def hide_proc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leave ps(1) as the only way to a command line, and give it the time that it takes."""

    def no_file(*_: object) -> None:
        raise FileNotFoundError

    monkeypatch.setattr(parent, "open", no_file, raising=False)
    monkeypatch.setattr(parent, "_PS_S", LIMIT_S)
    parent._ask_ps.cache_clear()


def wait_for_arguments(pid: int) -> None:
    """Wait until a process has a command line: right after exec(2) it is empty."""
    wait_until(Path(f"/proc/{pid}/cmdline").read_bytes)


@contextlib.contextmanager
def running(*words: str) -> Iterator[int]:
    """Run a process that goes by these arguments."""
    program = [*words[:1], "-c", "read", *words[1:]]
    with subprocess.Popen(
        program, executable=shutil.which("bash"), stdin=subprocess.PIPE
    ) as process:
        try:
            wait_for_arguments(process.pid)
            yield process.pid
        finally:
            process.kill()


@pytest.mark.parametrize(
    ("line", "is_quiet"),
    [
        ("-q dm-foo", True), ("-o LogLevel=QUIET dm-foo", True), ("-o LogLevel=fatal dm-foo", True),
        ("-o LogLevel=ERROR dm-foo", True), ("-o LogLevel=INFO dm-foo", False), ("dm-foo", False),
        ("-E LogLevel=QUIET dm-foo", False),
    ],
)  # fmt: skip
def test_levels_below_info_are_quiet(
    monkeypatch: pytest.MonkeyPatch, line: str, is_quiet: bool
) -> None:
    monkeypatch.setattr(parent, "_arguments", lambda pid: line.split() if pid == 7 else [])
    assert wants_quiet(7) is is_quiet


@pytest.mark.parametrize(
    ("options", "bypass", "login"),
    [
        ([("o", "ProxyCommand NONE")], "", None),
        ([("o", "ProxyJump=None")], None, None),
        ([("E", "ProxyJump=hop")], None, None),
        ([("", "ProxyJump=hop")], None, None),
        ([("E", "User=me")], None, None),
        ([("E", "me@dm-foo")], None, None),
        ([("", "me@dm-foo")], None, "me"),
    ],
)
def test_only_options_and_the_destination_count(
    options: list[tuple[str, str]], bypass: str | None, login: str | None
) -> None:
    assert (find_bypass(options), login_name(options)) == (bypass, login)


@pytest.mark.parametrize(
    ("output", "words"),
    [
        (Output(0, b"/usr/bin/ssh -G dm-foo\n", b""), ["/usr/bin/ssh", "-G", "dm-foo"]),
        (Output(0, b"sh -c /usr/bin/ssh -G dm-foo\n", b""), ["/usr/bin/ssh", "-G", "dm-foo"]),
        (Output(0, b"python3 x\n", b""), ["python3", "x"]),
        (Output(1, b"/usr/bin/ssh\n", b""), None),
        (Output(0, b"\n", b""), None),
        (OSError(8, "Exec format error"), None),
        (TimeoutError(), None),
        (None, None),
    ],
)
def test_ps_is_asked_where_there_is_no_proc(
    monkeypatch: pytest.MonkeyPatch, output: Output | Exception | None, words: list[str] | None
) -> None:
    hide_proc(monkeypatch)

    def find(name: str, environment: object, more: tuple[str, ...]) -> str | None:
        assert (name, environment, more) == ("ps", os.environ, ("/bin", "/usr/bin"))
        return None if output is None else "/bin/ps"

    def run(command: list[str], *, environment: dict[str, str], limit_s: float) -> Output:
        # -ww, or a narrow COLUMNS would cut it.
        assert command == ["/bin/ps", "-ww", "-o", "args=", "-p", "7"]
        assert environment == {"PATH": os.defpath}
        assert limit_s == parent._PS_S
        assert output is not None
        if isinstance(output, Exception):
            raise output
        return output

    monkeypatch.setattr(parent, "find_program", find)
    monkeypatch.setattr(parent, "run", run)
    assert parent._command_line(7) == words
    parent._ask_ps.cache_clear()


@pytest.mark.parametrize("stat", [b"", b"7 (a) S 1", b"7 (a) " + b"\xff " * 30])
def test_a_process_whose_start_is_not_told_is_its_number(
    monkeypatch: pytest.MonkeyPatch, stat: bytes
) -> None:
    monkeypatch.setattr(parent, "open", lambda *_: io.BytesIO(stat), raising=False)
    assert client_id(7) == "7:"
