"""The warm path in process: with a real state directory, an agent that answers, and a gateway."""

from __future__ import annotations

import _socket
import contextlib
import errno
import os
import posix
import shutil
import socket
import stat
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.fastpath import helper
from dcs_proxy.local.settings import Settings, config_path
from dcs_proxy.names import MachineName
from dcs_proxy.openssh.config_text import render_agent_snippet
from dcs_proxy.publish.fast_entry import FastEntry
from dcs_proxy.publish.includes import mark_checked, publish_user_agent
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Attempt, ReadySession, Record
from dcs_proxy.ssh.wire import pack_string, pack_u32
from tests.support.fake_agent import FakeAgent, Store, fake_agent, socket_directory
from tests.support.waiting import LIMIT_S

HOST = MachineName("dm-foo")
# Not at all our own clock: everything is judged by the one that is patched in.
NOW = 1_000_000.0


@dataclass
class Warm:
    """One user's computer just after an ssh; `environment` is that of the next ssh."""

    state: StateDirectory
    agent: FakeAgent
    store: Store
    record: Record
    gateway: socket.socket
    environment: dict[bytes, bytes] = field(default_factory=dict)
    settings: Settings = field(default_factory=Settings)

    @property
    def entry(self) -> Path:
        return Path(self.state.file("sessions", "dm-foo.warm"))

    def publish(self, user_agent: str = "") -> None:
        """Write what the full program would have."""
        publish_user_agent(self.state, user_agent)
        mark_checked(self.state)
        environment = {os.fsdecode(k): os.fsdecode(v) for k, v in self.environment.items()}
        config = self.state.file("config.toml")
        FastEntry(self.state, self.settings, environment, config).write(
            HOST, self.record, [self.state.snippet_path(HOST)], self.gateway.getsockname()[0]
        )

    def change(self, number: int, text: str) -> None:
        """Change one field of the entry."""
        fields = self.entry.read_text().split("\0")
        fields[number] = text
        self.entry.write_text("\0".join(fields))

    def prepare(self, *options: str) -> bool:
        return helper.run(["--home", self.state.path, *options, "prepare", "dm-foo"])

    def connect(self, login: str = "user") -> bool:
        return helper.run(["--home", self.state.path, "--login", login, "dm-foo", "22"])

    def log(self) -> str:
        path = Path(self.state.file("log"))
        return path.read_text() if path.exists() else ""


@pytest.fixture
def warm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Warm]:
    state = StateDirectory(str(tmp_path / "state"))
    Path(state.snippet_path(HOST)).write_text("Match originalhost dm-foo\n")
    with fake_agent() as agent, socket.create_server(("127.0.0.1", 0)) as gateway:
        agent.answer = store = Store()
        port = gateway.getsockname()[1]
        ready = ReadySession("ssh.example", port, "user", "a", "", True, NOW + 3600, NOW, NOW)
        record = Record(Attempt("k", "ab" * 32, agent.path, NOW + 600, "a"), ready, "", "before")
        store.held[record.identity] = b"dm-foo"
        environment = {b"DCS_PROXY_CONFIG": os.fsencode(state.file("config.toml"))}
        found = Warm(state, agent, store, record, gateway, environment)
        # os.environ does not reach the module.
        monkeypatch.setattr(posix, "environ", found.environment)
        monkeypatch.setattr(helper, "time", lambda: NOW + 1)
        found.publish()
        yield found


def test_a_warm_prepare_asks_the_agent_only(warm: Warm) -> None:
    assert warm.prepare()
    assert warm.agent.requests == [b"\x0b"]


def clock(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    monkeypatch.setattr(helper, "time", lambda: NOW + seconds)


def ended_process() -> int:
    """Return the number of a process that has ended."""
    with subprocess.Popen(["true"]) as process:
        pass
    return process.pid


def test_a_host_is_prepared_in_any_case(warm: Warm) -> None:
    """ssh runs Match exec with the name as typed, and the ProxyCommand in lower case."""
    assert helper.run(["--home", warm.state.path, "prepare", "DM-Foo"])


def test_after_an_ssh_that_has_ended_the_api_is_asked(warm: Warm) -> None:
    use = warm.state.use_path(HOST)
    helper.note_use(use, os.getpid())
    assert warm.prepare(), "it is still there"
    helper.note_use(use, ended_process())
    assert not warm.prepare()
    assert warm.state.is_doubtful(HOST, NOW)


def test_an_ssh_that_has_ended_and_whose_parent_does_not_look_has_ended(warm: Warm) -> None:
    with subprocess.Popen(["true"]) as process:
        # It is left a zombie: sftp leaves its ssh so.
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        helper.note_use(warm.state.use_path(HOST), process.pid)
        assert not warm.prepare()


def test_a_process_whose_name_looks_like_a_zombies_is_none(warm: Warm, tmp_path: Path) -> None:
    program = tmp_path / "x) Z"
    shutil.copy(shutil.which("sleep") or "", program)
    with subprocess.Popen([program, "60"]) as process:
        helper.note_use(warm.state.use_path(HOST), process.pid)
        is_warm = warm.prepare()
        process.kill()
    assert is_warm


def test_without_proc_a_process_that_can_be_signalled_is_alive(
    warm: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    helper.note_use(warm.state.use_path(HOST), os.getpid())
    read = helper._read

    def without_proc(path: str) -> bytes:
        if path.startswith("/proc/"):
            raise FileNotFoundError(path)
        return read(path)

    monkeypatch.setattr(helper, "_read", without_proc)
    assert warm.prepare()


def test_a_note_does_not_follow_a_link(warm: Warm, tmp_path: Path) -> None:
    other = tmp_path / "other"
    os.symlink(other, warm.state.use_path(HOST))
    with pytest.raises(OSError, match="symbolic links"):
        helper.note_use(warm.state.use_path(HOST), os.getpid())
    assert not other.exists()


def test_an_ssh_that_has_asked_the_api_itself_leaves_no_doubt(warm: Warm) -> None:
    first, second = ended_process(), ended_process()
    warm.state.save_use(HOST, first, 0)
    helper.note_use(warm.state.use_path(HOST), first)
    assert warm.prepare()
    helper.note_use(warm.state.use_path(HOST), second)
    assert not warm.prepare()


def test_a_loop_of_ssh_does_not_ask_each_time(warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    warm.state.save_use(HOST, ended_process(), NOW + 5)
    helper.note_use(warm.state.use_path(HOST), ended_process())
    assert warm.prepare()
    clock(monkeypatch, 4.99)
    assert warm.prepare()
    clock(monkeypatch, 5)
    assert not warm.prepare()


@pytest.mark.parametrize("data", [b"0000000001", b"x" * 21, b"\xff" * 11 + b"0", b"9" * 30 + b"-"])
def test_a_damaged_note_is_no_fault(warm: Warm, data: bytes) -> None:
    Path(warm.state.use_path(HOST)).write_bytes(data)
    warm.prepare()
    warm.state.is_doubtful(HOST, NOW)
    helper.note_use(warm.state.use_path(HOST), os.getpid())


@pytest.mark.parametrize("data", [b"x" * 10 + b"-", b"9" * 10 + b"-", b"0000000001-x"])
def test_a_note_that_names_no_process_is_doubtful(warm: Warm, data: bytes) -> None:
    Path(warm.state.use_path(HOST)).write_bytes(data)
    assert helper.is_doubtful(warm.state.use_path(HOST), NOW)
    assert warm.state.is_doubtful(HOST, NOW)


@pytest.mark.parametrize(
    ("seconds", "is_warm"), [(-0.01, False), (0, True), (59.99, True), (60, False)]
)
def test_prepare_uses_a_session_for_as_long_as_reuse_seconds(
    warm: Warm, monkeypatch: pytest.MonkeyPatch, seconds: float, is_warm: bool
) -> None:
    clock(monkeypatch, seconds)
    assert warm.prepare() is is_warm


@pytest.mark.parametrize(
    ("seconds", "is_warm"), [(-0.01, False), (0, True), (119.99, True), (120, False)]
)
def test_the_proxy_command_uses_it_for_a_minute_more(
    warm: Warm, handed: Handed, monkeypatch: pytest.MonkeyPatch, seconds: float, is_warm: bool
) -> None:
    clock(monkeypatch, seconds)
    assert warm.connect() is is_warm


CHANGES: dict[str, Callable[[Warm], Any]] = {
    "another version": lambda warm: warm.change(helper.VERSION, "1"),
    "cut short": lambda warm: warm.change(helper.END, "end"),
    "a field more": lambda warm: warm.entry.write_text(warm.entry.read_text() + "\0"),
    "another config file": lambda warm: warm.change(helper.CONFIG_PATH, "/other.toml"),
    "a config file": lambda warm: Path(warm.state.file("config.toml")).write_text(""),
    "the snippet": lambda warm: Path(warm.state.snippet_path(HOST)).write_text("Match all\n"),
    "no snippet": lambda warm: os.unlink(warm.state.snippet_path(HOST)),
    "DEDALUS_BASE_URL": lambda warm: warm.environment.update({b"DEDALUS_BASE_URL": b"x"}),
    "DEDALUS_ORG_ID": lambda warm: warm.environment.update({b"DEDALUS_ORG_ID": b"x"}),
    "DCS_PROXY_CONFIG": lambda warm: warm.environment.update({b"DCS_PROXY_CONFIG": b"x"}),
    "a file in hosts": lambda warm: newer(warm, "hosts"),
    "a file in agents": lambda warm: newer(warm, "agents"),
    "others may write": lambda warm: os.chmod(warm.state.path, 0o722),
    "to sessions": lambda warm: os.chmod(warm.state.file("sessions"), 0o720),
    "to hosts": lambda warm: os.chmod(warm.state.file("hosts"), 0o702),
    "to agents": lambda warm: os.chmod(warm.state.file("agents"), 0o720),
    "to the agent's directory": lambda warm: os.chmod(os.path.dirname(warm.agent.path), 0o720),
    "no identity": lambda warm: warm.store.held.clear(),
    "a locked agent": lambda warm: setattr(warm.store, "is_locked", True),
    "a user's agent": lambda warm: warm.environment.update({b"SSH_AUTH_SOCK": b"/dev/null"}),
}


def newer(warm: Warm, part: str) -> None:
    """Add a file that ssh includes, surely later than the last check."""
    checked = os.stat(warm.state.file("checked")).st_ctime_ns
    path = Path(warm.state.file(part, "new.conf"))
    path.touch()
    while path.stat().st_ctime_ns <= checked:
        path.chmod(0o600)


def test_a_file_that_changed_at_the_very_moment_of_the_check_was_checked(warm: Warm) -> None:
    # Two names of one file have one time.
    os.link(warm.state.file("checked"), warm.state.file("hosts", "dm-x.conf"))
    assert warm.prepare()


@pytest.mark.parametrize("stale", [None, 0, 1])
def test_each_file_that_ssh_reads_is_compared(warm: Warm, stale: int | None) -> None:
    files = [warm.state.snippet_path(HOST), warm.state.file("checked")]
    stamps = ["0 0 0" if at == stale else helper.stamp(file) for at, file in enumerate(files)]
    lines = (f"{file}\t{stamp}" for file, stamp in zip(files, stamps, strict=True))
    warm.change(helper.FILES, "\n".join(lines))
    assert warm.prepare() is (stale is None)


def test_a_link_is_judged_by_itself_not_by_what_it_leads_to(warm: Warm, tmp_path: Path) -> None:
    old = tmp_path / "old"
    old.touch()
    checked = Path(warm.state.file("checked"))
    while checked.stat().st_ctime_ns <= old.stat().st_ctime_ns:
        checked.chmod(0o600)
    link = Path(warm.state.file("hosts", "dm-x.conf"))
    link.symlink_to(old)
    while link.lstat().st_ctime_ns <= checked.stat().st_ctime_ns:
        link.unlink()
        link.symlink_to(old)
    assert not warm.prepare()


@pytest.mark.parametrize("change", CHANGES)
def test_after_a_change_the_full_program_prepares(warm: Warm, change: str) -> None:
    CHANGES[change](warm)
    assert not warm.prepare()


def test_a_config_file_on_the_command_line_is_compared(warm: Warm) -> None:
    assert not warm.prepare("--config", "/some.toml")
    warm.change(helper.CONFIG_PATH, "/some.toml")
    assert warm.prepare("--config", "/some.toml")


@pytest.mark.parametrize(
    ("named", "environment"),
    [
        ("/c", {"DCS_PROXY_CONFIG": "/d", "XDG_CONFIG_HOME": "/x", "HOME": "/h"}),
        ("", {"DCS_PROXY_CONFIG": "/d", "XDG_CONFIG_HOME": "/x", "HOME": "/h"}),
        ("", {"XDG_CONFIG_HOME": "/x", "HOME": "/h"}),
        ("", {"HOME": "/h"}),
        ("", {"XDG_CONFIG_HOME": "", "DCS_PROXY_CONFIG": "", "HOME": "/h"}),
        ("", {"HOME": "/h\udcff"}),
    ],
)
def test_the_config_file_is_where_the_settings_find_it(
    monkeypatch: pytest.MonkeyPatch, named: str, environment: dict[str, str]
) -> None:
    found = {os.fsencode(name): os.fsencode(value) for name, value in environment.items()}
    monkeypatch.setattr(posix, "environ", found)
    monkeypatch.setenv("HOME", environment["HOME"])
    assert helper._config_path(named) == (named or config_path(environment))


def test_a_directory_of_another_user_is_not_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o755)  # others may read
    assert helper._is_private(str(tmp_path))
    monkeypatch.setattr(posix, "geteuid", lambda: os.geteuid() + 1)
    assert not helper._is_private(str(tmp_path))


@pytest.mark.parametrize("host", ["dm-foo/../dm-foo", "dm.foo", "", "d" * 201])
def test_what_is_no_host_name_is_left_to_the_full_program(warm: Warm, host: str) -> None:
    assert not helper.run(["--home", warm.state.path, "prepare", host])


@pytest.mark.parametrize(
    "words",
    [["prepare", "dm-foo", "more"], ["status"], ["status", "dm-foo"],
     ["--login", "user", "dm-foo", "ssh"], ["--login", "user", "dm-foo"],
     ["--login", "user", "dm-foo", "22", "more"], ["--user", "user", "dm-foo", "22"]],
)  # fmt: skip
def test_other_command_lines_are_left_to_the_full_program(
    warm: Warm, handed: Handed, words: list[str]
) -> None:
    with contextlib.suppress(IndexError):
        assert not helper.run(["--home", warm.state.path, *words])


def test_a_command_line_that_does_not_begin_with_the_state_directory_is_the_full_programs(
    warm: Warm,
) -> None:
    assert not helper.run(["--state", warm.state.path, "prepare", "dm-foo"])


def test_the_agents_list_is_walked_not_searched(warm: Warm) -> None:
    ours = warm.record.identity
    warm.store.held = {b"a certificate with " + ours + b" inside": b"", b"other": ours}
    assert not warm.prepare()
    warm.store.held[ours] = b""
    assert warm.prepare()


@pytest.mark.parametrize(
    "reply",
    [b"\x05", b"\x0d" + pack_u32(0), b"\x0c" + pack_u32(2**32 - 1), b"\x0c" + bytes(256 * 1024)],
)
def test_an_agent_that_refuses_or_babbles_holds_nothing(warm: Warm, reply: bytes) -> None:
    warm.agent.answer = lambda _request: pack_string(reply)
    assert not warm.prepare()


def test_a_reply_of_another_kind_is_no_list(warm: Warm) -> None:
    listed = pack_u32(1) + pack_string(warm.record.identity) + pack_string(b"")
    for kind, is_held in ((b"\x0c", True), (b"\x0d", False)):
        warm.agent.answer = lambda _request, kind=kind: pack_string(kind + listed)
        assert helper._holds(warm.agent.path, warm.record.identity) is is_held


def test_a_reply_in_two_pieces_is_read_to_its_end(warm: Warm, tmp_path: Path) -> None:
    blob, comment = warm.record.identity, b"c" * 200_000
    listed = pack_string(b"other") + pack_string(comment) + pack_string(blob) + pack_string(b"")
    warm.agent.answer = lambda _request: pack_string(b"\x0c" + pack_u32(2) + listed)
    assert warm.prepare()


@pytest.mark.parametrize(("more", "is_read"), [(0, True), (1, False)])
def test_a_reply_is_read_up_to_opensshs_limit(warm: Warm, more: int, is_read: bool) -> None:
    blob = warm.record.identity
    # A byte, a number, and four strings with their lengths.
    comment = b"c" * (256 * 1024 - 1 - 4 - 4 * 4 - len(b"other") - len(blob) + more)
    listed = pack_string(b"other") + pack_string(comment) + pack_string(blob) + pack_string(b"")
    warm.agent.answer = lambda _request: pack_string(b"\x0c" + pack_u32(2) + listed)
    assert warm.prepare() is is_read


def test_an_agent_at_a_path_of_any_bytes_is_asked(warm: Warm) -> None:
    with socket_directory() as directory:
        agent = FakeAgent(os.path.join(directory, "\udcff.sock"))
        agent.answer = warm.store
        agent.thread.start()
        warm.change(helper.AGENT, "AGENT")
        data = warm.entry.read_bytes()
        warm.entry.write_bytes(data.replace(b"AGENT", os.fsencode(agent.path)))
        assert warm.prepare()
        agent.stop()


def test_where_the_system_does_not_tell_whose_an_agent_is_its_directory_does(
    warm: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "peer", lambda _sock: (None, None))
    assert helper._holds(warm.agent.path, warm.record.identity)
    # The connection that is given up sends no request.
    warm.agent.answer = lambda request: warm.store(request) if request else b""
    os.chmod(os.path.dirname(warm.agent.path), 0o777)
    assert not helper._holds(warm.agent.path, warm.record.identity)


@pytest.mark.parametrize(
    ("path", "directory"),
    [("/a/b.sock", b"/a/"), (b"/a/b.sock", b"/a/"), ("/\udcff/s", b"/\xff/"), ("s", b".")],
)
def test_the_directory_of_a_socket_is_that_of_its_path(
    monkeypatch: pytest.MonkeyPatch, path: str | bytes, directory: bytes
) -> None:
    asked: list[str | bytes] = []
    monkeypatch.setattr(helper, "peer", lambda _sock: (None, None))
    monkeypatch.setattr(helper, "_is_private", lambda found: bool(asked.append(found)))
    with socket.socket(socket.AF_UNIX) as sock:
        assert not helper.is_trusted(sock, path)
    assert asked == [directory]


@pytest.mark.parametrize(("user", "is_trusted"), [(4242, True), (0, True), (1, False), (-1, False)])
def test_only_our_own_agents_and_roots_are_trusted(
    monkeypatch: pytest.MonkeyPatch, user: int, is_trusted: bool
) -> None:
    monkeypatch.setattr(posix, "geteuid", lambda: 4242)
    monkeypatch.setattr(helper, "peer", lambda _sock: (user, 7))
    with socket.socket(socket.AF_UNIX) as sock:
        assert helper.is_trusted(sock, "/agent.sock") is is_trusted


class Kernel:
    """Answers getsockopt as a system's kernel does; None: it does not know the option."""

    def __init__(self, answer: bytes | None) -> None:
        self.answer = answer
        self.asked: list[tuple[int, ...]] = []

    def getsockopt(self, *words: int) -> bytes:
        self.asked.append(words)
        if self.answer is None:
            raise OSError(errno.ENOPROTOOPT, "Protocol not available")
        return self.answer


PID, USER, GROUP = 0x01020304, 0x05060708, 0x090A0B0C


@pytest.mark.parametrize(
    ("system", "asked", "answer", "found"),
    [
        ("linux", (1, 17, 12), (PID, USER, GROUP), (USER, PID)),
        # The process may be in another namespace.
        ("linux", (1, 17, 12), (0, USER, GROUP), (USER, None)),
        ("linux", (1, 17, 12), None, (None, None)),
        ("darwin", (0, 1, 76), (PID, USER, *[GROUP] * 17), (USER, None)),
        ("freebsd14", (0, 1, 88), (PID, USER, *[GROUP] * 20), (USER, None)),
        ("openbsd7", (0xFFFF, 0x1022, 12), (USER, GROUP, PID), (USER, PID)),
        ("netbsd10", (0, 3, 12), (PID, USER, GROUP), (USER, PID)),
        ("aix", (), (), (None, None)),
    ],
)
def test_the_kernel_tells_whose_an_agent_is(
    monkeypatch: pytest.MonkeyPatch, system: str, asked: tuple[int, ...],
    answer: tuple[int, ...] | None, found: tuple[int | None, int | None],
) -> None:  # fmt: skip
    monkeypatch.setattr(sys, "platform", system)
    kernel = Kernel(None if answer is None else struct.pack(f"={len(answer)}I", *answer))
    # It needs no more of a socket.
    assert helper.peer(kernel) == found  # type: ignore[arg-type]
    assert kernel.asked == ([asked] if asked else [])


def test_an_agent_that_closes_early_holds_nothing(warm: Warm) -> None:
    warm.agent.answer = lambda _request: b"\0\0\1\0\x0c"
    assert not warm.prepare()


def test_an_agent_of_another_user_is_not_asked(warm: Warm, monkeypatch: pytest.MonkeyPatch) -> None:
    assert helper._holds(warm.agent.path, warm.record.identity)
    # The connection that is given up sends no request.
    warm.agent.answer = lambda request: warm.store(request) if request else b""
    monkeypatch.setattr(helper, "peer", lambda _sock: (4711, None))
    assert not helper._holds(warm.agent.path, warm.record.identity)


def test_an_agent_that_answers_in_drops_has_a_time_limit(
    warm: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(helper, "time", lambda: now.__setitem__(0, now[0] + 1) or now[0])
    with socket_directory() as directory, socket.socket(socket.AF_UNIX) as slow:
        path = os.path.join(directory, "slow.sock")
        slow.bind(path)
        slow.listen(1)

        def drip() -> None:
            connection, _ = slow.accept()
            with connection, contextlib.suppress(OSError):
                connection.recv(1, socket.MSG_PEEK)  # the request, which stays unread
                # Complete, it would be a list with the identity.
                connection.sendall(b"\0\2\0\0\x0c")
                while connection.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK):
                    connection.sendall(b"\0")

        thread = threading.Thread(target=drip)
        thread.start()
        assert not helper._holds(path, b"")
        thread.join(20)
        assert not thread.is_alive()


def test_an_agent_that_does_not_answer_has_a_time_limit(
    warm: Warm, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "_AGENT_S", 0.05)
    with socket_directory() as directory, socket.socket(socket.AF_UNIX) as silent:
        path = os.path.join(directory, "silent.sock")
        silent.bind(path)
        silent.listen(1)
        with pytest.raises(TimeoutError):
            helper._holds(path, b"")


@pytest.mark.parametrize("name", ["user.sock", "100%.sock"])
def test_the_users_own_agent_is_forwarded(warm: Warm, tmp_path: Path, name: str) -> None:
    path = str(tmp_path / name)
    Path(path).touch()
    warm.environment[b"SSH_AUTH_SOCK"] = path.encode()
    assert not warm.prepare()
    warm.publish(path)
    assert warm.prepare()
    del warm.environment[b"SSH_AUTH_SOCK"]
    assert not warm.prepare(), "the file would forward an agent that this ssh does not have"


def test_one_of_several_agents_is_forwarded(warm: Warm, tmp_path: Path) -> None:
    paths = [str(tmp_path / name) for name in ("one.sock", "two.sock", "three.sock")]
    for path in paths:
        Path(path).touch()
    for path in paths[:2]:
        warm.publish(path)
    for path, is_warm in zip(paths, [True, True, False], strict=True):
        warm.environment[b"SSH_AUTH_SOCK"] = path.encode()
        assert warm.prepare() is is_warm


def test_an_agent_that_is_gone_is_not_forwarded(warm: Warm, tmp_path: Path) -> None:
    path = tmp_path / "user.sock"
    path.touch()
    warm.environment[b"SSH_AUTH_SOCK"] = os.fsencode(path)
    warm.publish(str(path))
    path.unlink()
    with pytest.raises(FileNotFoundError):
        warm.prepare()


def test_our_own_agents_are_never_forwarded(warm: Warm) -> None:
    warm.environment[b"SSH_AUTH_SOCK"] = os.fsencode(warm.agent.path)
    assert warm.prepare()
    sibling = os.path.join(os.path.dirname(warm.agent.path), "other.sock")
    warm.environment[b"SSH_AUTH_SOCK"] = os.fsencode(sibling)
    assert warm.prepare()


def links_to(agent: str, tmp_path: Path) -> list[str]:
    """Return other names of an agent's socket: links to it, to its directory and to a link."""
    (tmp_path / "link").symlink_to(agent)
    (tmp_path / "directory").symlink_to(os.path.dirname(agent))
    (tmp_path / "chain").symlink_to("link")
    names = [
        tmp_path / "link",
        tmp_path / "directory" / os.path.basename(agent),
        tmp_path / "chain",
    ]
    around = os.path.join(os.path.dirname(agent), ".", os.path.basename(agent))
    with contextlib.suppress(OSError):  # another file system
        os.link(agent, tmp_path / "hard")
        names.append(tmp_path / "hard")
    return [*map(str, names), around]


def test_links_to_our_own_agents_are_never_forwarded(warm: Warm, tmp_path: Path) -> None:
    for path in links_to(warm.agent.path, tmp_path):
        warm.environment[b"SSH_AUTH_SOCK"] = os.fsencode(path)
        assert warm.prepare(), path
    # The same names led to the user's own agent before, so that ssh would forward what they name.
    for path in links_to(warm.agent.path, make_directory(tmp_path / "again")):
        warm.environment[b"SSH_AUTH_SOCK"] = os.fsencode(path)
        for name, always in ((f"{path.encode().hex()}.conf", False), ("only.conf", True)):
            text = render_agent_snippet(path, always=always)
            Path(warm.state.file("agents", name)).write_text(text or "")
            mark_checked(warm.state)
            assert not warm.prepare(), (path, name)
            os.unlink(warm.state.file("agents", name))


def make_directory(path: Path) -> Path:
    path.mkdir()
    return path


def test_the_setting_user_means_the_agent_of_this_very_ssh(warm: Warm) -> None:
    warm.settings = replace(warm.settings, agent="user")
    warm.publish(warm.agent.path)
    assert not warm.prepare()
    warm.environment[b"SSH_AUTH_SOCK"] = os.fsencode(warm.agent.path)
    assert warm.prepare()
    os.unlink(warm.state.file("agents", "only.conf"))
    mark_checked(warm.state)
    assert not warm.prepare(), "ssh -A would forward nothing"


def test_the_setting_user_leaves_an_ssh_with_another_agent_to_the_full_program(
    warm: Warm, tmp_path: Path
) -> None:
    warm.settings = replace(warm.settings, agent="user")
    other = tmp_path / "other.sock"
    other.touch()
    for path in (str(other), warm.agent.path):
        warm.publish(path)
        warm.environment[b"SSH_AUTH_SOCK"] = os.fsencode(path)
        assert warm.prepare() is (path == warm.agent.path)
    warm.environment[b"SSH_AUTH_SOCK"] = os.fsencode(other)
    assert not warm.prepare()


class Handed:
    """ssh's end of the socket that it passes as our stdin and stdout."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.ours, self.theirs = socket.socketpair()
        fds = {0: self.ours.fileno(), 1: self.ours.fileno()}
        # The real ones belong to pytest.
        monkeypatch.setattr(posix, "fstat", lambda fd: os.fstat(fds.get(fd, fd)))
        monkeypatch.setattr(posix, "dup", lambda fd: os.dup(fds.get(fd, fd)))
        self.fds = fds

    def receive(self) -> socket.socket:
        """Return the connected socket that was passed."""
        self.theirs.settimeout(10)
        data, passed, _, _ = socket.recv_fds(self.theirs, 2, 2)
        assert data == b"\0"
        (fd,) = passed
        return socket.socket(fileno=fd)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def handed(monkeypatch: pytest.MonkeyPatch) -> Iterator[Handed]:
    found = Handed(monkeypatch)
    yield found
    found.close()


def test_a_warm_connection_is_handed_over(warm: Warm, handed: Handed) -> None:
    assert warm.connect()
    with handed.receive() as sock, warm.gateway.accept()[0] as far:
        far.sendall(b"SSH-2.0-gateway\r\n")
        assert sock.recv(100) == b"SSH-2.0-gateway\r\n"
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
        assert os.get_blocking(sock.fileno())
    use = Path(warm.state.use_path(HOST))
    assert use.read_bytes() == b"%010d-" % os.getppid()
    assert stat.S_IMODE(use.stat().st_mode) == 0o600
    assert warm.log() == (
        f"1970-01-12T13:46:41.000Z [{os.getpid()}/{os.getppid()}] connected machine=dm-foo "
        "login=user warm=yes fdpass=yes ms=0\n"
    )
    assert stat.S_IMODE(os.stat(warm.state.file("log")).st_mode) == 0o600
    assert warm.agent.requests == [], "prepare has asked it"


def test_a_warm_ssh_closes_every_file_that_it_opens(
    warm: Warm, handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it gives up, the full program goes on in the same process."""
    opened: list[int] = []
    closed: list[int] = []

    def open_file(*words: Any) -> int:
        opened.append(os.open(*words))
        return opened[-1]

    def close_file(fd: int) -> None:
        closed.append(fd)
        os.close(fd)

    monkeypatch.setattr(posix, "open", open_file)
    monkeypatch.setattr(posix, "close", close_file)
    assert warm.prepare() and warm.connect()
    assert opened == closed and opened


def test_the_log_says_how_long_it_took(
    warm: Warm, handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks = iter(range(1, 100))
    monkeypatch.setattr(helper, "time", lambda: NOW + next(ticks) / 4)
    assert warm.connect()
    # The clock was looked at before, for the session's times, and after.
    assert warm.log().endswith(" ms=500\n") and warm.log().startswith("1970-01-12T13:46:41.000Z")
    handed.receive().close()


def test_a_line_has_its_moment_and_a_log_its_length(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock(monkeypatch, 1 - 1 / 1024)
    path = str(tmp_path / "log")
    line = f"1970-01-12T13:46:40.999Z [{os.getpid()}/7] a?b\n"
    assert [helper.write_line(path, 7, "a\udcffb") for _ in range(2)] == [len(line), 2 * len(line)]
    assert Path(path).read_text() == line * 2


@pytest.mark.parametrize(("user", "is_written"), [(0, True), (4242, True), (1, False)])
def test_a_log_of_another_user_is_written_by_root_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, is_written: bool
) -> None:
    status = os.stat_result((stat.S_IFREG | 0o600, 1, 1, 1, 4242, 0, 0, 0, 0, 0))
    monkeypatch.setattr(posix, "fstat", lambda _fd: status)
    monkeypatch.setattr(posix, "geteuid", lambda: user)
    path = str(tmp_path / "log")
    if is_written:
        assert helper.write_line(path, 7, "text") > 0
    else:
        with pytest.raises(OSError, match="not a log of ours"):
            helper.write_line(path, 7, "text")


def test_one_socket_on_both_descriptors_is_fdpass() -> None:
    ours, theirs = socket.socketpair()
    ends = os.pipe()
    with ours, theirs:
        again = os.dup(theirs.fileno())
        assert helper.is_fdpass(theirs.fileno(), again)
        assert not helper.is_fdpass(ours.fileno(), theirs.fileno())
        assert not helper.is_fdpass(*ends)
        assert not helper.is_fdpass(ends[0], ends[0])
        os.close(again)
    for fd in ends:
        os.close(fd)


def test_a_client_that_has_spoken_does_not_wait_for_a_socket(warm: Warm, handed: Handed) -> None:
    handed.theirs.sendall(b"SSH-2.0-libssh\r\n")
    assert not warm.connect()
    assert handed.ours.recv(100) == b"SSH-2.0-libssh\r\n"


def test_an_ssh_that_checks_no_host_is_the_full_programs(
    warm: Warm, handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "checks_no_host", lambda pid: pid == os.getppid())
    assert not warm.connect()


@pytest.mark.parametrize(
    ("address", "family"), [("192.0.2.1", socket.AF_INET), ("2001:db8::1", socket.AF_INET6)]
)
def test_the_family_is_that_of_the_address(
    warm: Warm, handed: Handed, monkeypatch: pytest.MonkeyPatch, address: str,
    family: socket.AddressFamily,
) -> None:  # fmt: skip
    opened: list[tuple[Any, ...]] = []
    real = _socket.socket

    def open_socket(*words: Any, fileno: int | None = None) -> Any:
        if fileno is not None:
            return real(fileno=fileno)
        opened.append(words)
        raise Executed

    monkeypatch.setattr(_socket, "socket", open_socket)
    warm.change(helper.ADDRESS, address)
    with pytest.raises(Executed):
        warm.connect()
    assert opened == [(family, socket.SOCK_STREAM)]


def test_a_gateway_that_is_waited_for_loses_no_byte(
    warm: Warm, handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "waits_too_long", lambda _pid: True)
    monkeypatch.setattr(helper, "_SILENCE_S", LIMIT_S)

    def speak() -> None:
        with warm.gateway.accept()[0] as far:
            far.sendall(b"SSH-2.0-gateway\r\n")

    thread = threading.Thread(target=speak)
    thread.start()
    assert warm.connect()
    with handed.receive() as sock:
        assert sock.recv(100) == b"SSH-2.0-gateway\r\n"
    thread.join()


def test_keepalive_has_another_name_on_a_mac(monkeypatch: pytest.MonkeyPatch) -> None:
    option = socket.TCP_KEEPIDLE
    monkeypatch.delattr(_socket, "TCP_KEEPIDLE")
    monkeypatch.setattr(_socket, "TCP_KEEPALIVE", option, raising=False)
    with socket.socket() as sock:
        helper.set_options(sock)
        assert sock.getsockopt(socket.IPPROTO_TCP, option) == 60


def test_elsewhere_than_on_linux_ssh_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    near, far = socket.socketpair()
    with near, far:
        near.setblocking(False)
        helper.await_received(near)
        monkeypatch.setattr(sys, "platform", "darwin")
        monkeypatch.setattr(helper, "_RECEIVE_S", 0.01)
        helper.await_received(near)
        monkeypatch.setattr(helper, "_RECEIVE_S", LIMIT_S)
        thread = threading.Thread(target=helper.await_received, args=(near,))
        thread.start()
        far.close()
        thread.join(LIMIT_S)
        assert not thread.is_alive()


@pytest.mark.parametrize(
    ("login", "is_ours"),
    [("user", True), ("before", True), ("use", False), ("user\nbefore", False), ("root", False)],
)
def test_only_the_logins_of_this_session_and_the_last_are_ours(
    warm: Warm, handed: Handed, login: str, is_ours: bool
) -> None:
    assert warm.connect(login) is is_ours


def test_without_an_address_the_full_program_connects(warm: Warm, handed: Handed) -> None:
    warm.change(helper.ADDRESS, "")
    assert not warm.connect()


def test_a_gateway_that_refuses_is_left_to_the_full_program(warm: Warm, handed: Handed) -> None:
    warm.gateway.close()
    with pytest.raises(ConnectionRefusedError):
        warm.connect()


def test_a_gateway_that_does_not_answer_has_a_time_limit(
    warm: Warm, handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "_CONNECT_S", 0.05)
    with socket.socket() as full, contextlib.ExitStack() as waiting:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        # Once its queue is full Linux ignores further connections.
        for _ in range(3):
            sock = waiting.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(full.getsockname())
        warm.change(helper.PORT, str(full.getsockname()[1]))
        start = time.monotonic()
        with pytest.raises(TimeoutError):
            warm.connect()
        assert time.monotonic() - start < 10


def test_a_use_that_cannot_be_noted_is_no_reason_to_refuse(warm: Warm, handed: Handed) -> None:
    os.mkdir(warm.state.use_path(HOST))
    assert warm.connect()
    handed.receive().close()


@pytest.mark.parametrize(
    ("words", "is_long"),
    [
        ("ssh dm-foo", False),
        ("ssh -o ConnectTimeout=15 dm-foo", False),
        ("ssh -oConnectTimeout=30 dm-foo", False),
        ("ssh -o ConnectTimeout=1 dm-foo", False),
        ("ssh -o ConnectTimeout=31 dm-foo", True),
        ("ssh -o connecttimeout=300 -o ConnectTimeout=5 dm-foo", True),
        ("ssh -o ConnectTimeout=0 dm-foo", True),
        ("ssh -o ConnectTimeout=5m dm-foo", True),
        ("ssh -o ConnectTimeout=none dm-foo", True),
        ('ssh -o ConnectTimeout="300" dm-foo', True),
        ('ssh -o ConnectTimeout="10" dm-foo', False),
        ("ssh -o ConnectTimeout", False),
    ],
)
def test_a_long_connect_timeout_is_seen(
    monkeypatch: pytest.MonkeyPatch, words: str, is_long: bool
) -> None:
    line = words.replace(" ", "\0").encode() + b"\0"
    monkeypatch.setattr(helper, "_read", lambda path: line if path == "/proc/7/cmdline" else b"")
    assert helper.waits_too_long(7) is is_long


@pytest.mark.parametrize(
    ("words", "is_off"),
    [
        ("ssh dm-foo", False),
        ("ssh -o StrictHostKeyChecking=yes dm-foo", False),
        ("ssh -o StrictHostKeyChecking=true dm-foo", False),
        ("ssh -o StrictHostKeyChecking=no dm-foo", True),
        ("ssh -oStrictHostKeyChecking=off dm-foo", True),
        ("ssh -o stricthostkeychecking=accept-new dm-foo", True),
        ('ssh -o StrictHostKeyChecking="no" dm-foo', True),
        ("ssh -o StrictHostKeyChecking=yes -o StrictHostKeyChecking=no dm-foo", False),
    ],
)
def test_a_host_check_that_is_off_is_seen(
    monkeypatch: pytest.MonkeyPatch, words: str, is_off: bool
) -> None:
    line = words.replace(" ", "\0").encode() + b"\0"
    monkeypatch.setattr(helper, "_read", lambda path: line if path == "/proc/7/cmdline" else b"")
    assert helper.checks_no_host(7) is is_off


@pytest.mark.parametrize(
    ("words", "may_jump"),
    [
        ("ssh dm-foo", False),
        ("ssh dm-foo-J", False),
        ("ssh -J hop dm-foo", True),
        ("ssh -Jhop dm-foo", True),
        ("ssh -o proxyjump=hop dm-foo", True),
        ("ssh -oProxyJump=hop dm-foo", True),
    ],
)
def test_an_ssh_that_may_jump_is_left_to_the_full_program(
    warm: Warm, monkeypatch: pytest.MonkeyPatch, words: str, may_jump: bool
) -> None:
    read = helper._read
    line = words.replace(" ", "\0").encode() + b"\0"
    monkeypatch.setattr(
        helper, "_read", lambda path: line if path.endswith("/cmdline") else read(path)
    )
    assert warm.prepare() is not may_jump


def test_without_proc_a_timeout_may_be_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(path: str) -> bytes:
        raise FileNotFoundError(path)

    monkeypatch.setattr(helper, "_read", fail)
    assert helper.waits_too_long(7)
    assert not helper.checks_no_host(7)


def test_a_silent_gateway_is_left_to_the_full_program(
    warm: Warm, handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "waits_too_long", lambda _pid: True)
    monkeypatch.setattr(helper, "_SILENCE_S", 0.05)
    with pytest.raises(TimeoutError):
        warm.connect()


@pytest.mark.parametrize("is_off", [True, False])
def test_the_log_can_be_off_or_impossible(warm: Warm, handed: Handed, is_off: bool) -> None:
    if is_off:
        warm.environment[b"DCS_PROXY_LOG"] = b"off"
    else:
        os.mkdir(warm.state.file("log"))
    assert warm.connect()
    handed.receive().close()
    assert not is_off or not os.path.exists(warm.state.file("log"))


class Executed(Exception):
    """Stands for the program that takes our place."""


def test_two_pipes_are_relayed_without_the_environment(
    warm: Warm, handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[list[str], dict[str, str]]] = []

    def execute(program: str, words: list[str], environment: dict[str, str]) -> None:
        fd = int(words[5])
        assert program == words[0] == sys.executable
        assert os.get_inheritable(fd) and os.fstat(fd)
        calls.append((words, environment))
        raise Executed

    monkeypatch.setattr(posix, "execve", execute)
    program = {f"/proc/{os.getppid()}/exe": "/usr/bin/ssh"}
    monkeypatch.setattr(posix, "readlink", program.__getitem__)
    warm.environment[b"DEDALUS_API_KEY"] = b"secret"
    pipes = [*os.pipe(), *os.pipe()]
    handed.fds.update({0: pipes[0], 1: pipes[3]})
    try:
        with pytest.raises(Executed):
            warm.connect()
    finally:
        for fd in pipes:
            os.close(fd)
    ((words, environment),) = calls
    assert words[1:5] == ["-I", "-S", str(Path(helper.__file__).parents[1] / "start.py"), "relay"]
    assert words[6:] == ["dm-foo", warm.state.path]
    assert environment == {}
    assert "warm=yes fdpass=no ms=" in warm.log()
    assert all(type(word) is str for word in words)


@pytest.mark.parametrize("parent", ["/usr/bin/node", "/usr/bin/sshfs", "/opt/openssh", None])
def test_two_pipes_of_another_client_are_left_to_the_full_program(
    warm: Warm, handed: Handed, monkeypatch: pytest.MonkeyPatch, parent: str | None
) -> None:
    """It reads what the client calls itself; None: there is no /proc."""

    def readlink(_: str) -> str:
        if parent is None:
            raise FileNotFoundError
        return parent

    monkeypatch.setattr(posix, "readlink", readlink)
    pipes = [*os.pipe(), *os.pipe()]
    handed.fds.update({0: pipes[0], 1: pipes[3]})
    try:
        assert not warm.connect()
    finally:
        for fd in pipes:
            os.close(fd)
    assert not os.path.exists(warm.state.file("log"))


def test_two_sockets_do_not_wait_for_a_third(
    warm: Warm, handed: Handed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """asyncssh gives its ProxyCommand one for each way."""
    monkeypatch.setattr(helper, "_is_openssh", lambda _pid: False)
    near, far = socket.socketpair()
    with near, far:
        for fds in ({0: near.fileno()}, {0: handed.ours.fileno(), 1: near.fileno()}):
            handed.fds.update(fds)
            assert not warm.connect()


def test_one_file_as_stdin_and_stdout_is_left_to_the_full_program(
    warm: Warm, handed: Handed, tmp_path: Path
) -> None:
    with open(tmp_path / "file", "wb") as file:
        handed.fds.update({0: file.fileno(), 1: file.fileno()})
        assert not warm.connect()


@pytest.mark.parametrize("is_warm", [True, False])
def test_whatever_goes_wrong_is_left_to_the_full_program(warm: Warm, is_warm: bool) -> None:
    words = ["--home", warm.state.path, "prepare", "dm-foo"]
    if not is_warm:
        warm.entry.unlink()
    assert helper.main(words) == (0 if is_warm else None)


def test_a_host_that_is_not_expanded_is_refused_at_once(warm: Warm) -> None:
    for options in ([], ["--config", "/some.toml"]):
        words = ["--home", warm.state.path, *options]
        assert helper.main([*words, "prepare", "%h"]) == 1
        assert helper.main([*words, "--login", "user", "%h"]) is None
