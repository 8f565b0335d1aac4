"""The private agents: started once, found again, replaced, and ended."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from dcs_proxy.errors import AgentUnavailable, StateError
from dcs_proxy.fastpath import helper
from dcs_proxy.local.lock import FileLock, try_lock
from dcs_proxy.local.log import Log
from dcs_proxy.ssh import agent_process
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.support.fake_agent import FakeAgent
from tests.support.private_agents import Authority, Place, add, certified_key, install
from tests.support.processes import agent_pid
from tests.support.waiting import LIMIT_S, wait_until


def test_the_private_agent_is_started_once_and_found_again(place: Place) -> None:
    place.ensure()
    pid = place.the_pid()
    place.ensure()
    assert place.the_pid() == pid
    assert os.stat(place.path).st_mode & 0o777 == 0o600
    assert os.stat(place.sockets).st_mode & 0o777 == 0o700


ENSURE = """
import sys
from dcs_proxy.ssh.private_agents import PrivateAgents
print("ready", flush=True)
sys.stdin.read()
PrivateAgents(sys.argv[1]).ready(timeout_s=60).identities()
"""
ADD = """
import sys
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.private_agents import PrivateAgents
print("ready", flush=True)
sys.stdin.read()
key = generate_key()
agent = PrivateAgents(sys.argv[1]).add_key(
    key, comment="dm-foo", lifetime_s=600, may_start=True, timeout_s=60)
assert agent.holds(key.blob)
"""


def start_ensure(
    place: Place, stdin: int, *, program: str = ENSURE, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[str]:
    """Start a process, in a session of its own, that says "ready" and waits for stdin to end."""
    return subprocess.Popen(
        [sys.executable, "-c", program, place.directory],
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        pass_fds=pass_fds,
        start_new_session=True,
        text=True,
    )


@pytest.mark.parametrize("left_behind", ["nothing", "a stale socket"])
def test_twenty_processes_at_once_share_one_agent(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, left_behind: str
) -> None:
    starts = tmp_path / "starts"
    script = f'#!/bin/sh\necho start >>{starts}\nexec {shutil.which("ssh-agent")} "$@"\n'
    install(tmp_path, monkeypatch, script)
    if left_behind == "a stale socket":
        leave_stale_socket(place)
    run_at_once(place, ENSURE)
    assert starts.read_text() == "start\n"
    place.the_pid()


def run_at_once(place: Place, program: str, count: int = 20) -> None:
    """Run the program in so many processes at once; fail if one of them does."""
    barrier, release = os.pipe()
    callers = [start_ensure(place, barrier, program=program) for _ in range(count)]
    os.close(barrier)
    for caller in callers:
        assert caller.stdout is not None and caller.stdout.readline() == "ready\n"
    os.close(release)
    complaints = [caller.communicate(timeout=LIMIT_S)[1] for caller in callers]
    assert complaints == [""] * count
    assert [caller.returncode for caller in callers] == [0] * count


def held(place: Place) -> list[int]:
    """Return how many identities each agent holds, in the order of their sockets."""
    return [len(Agent(path).identities()) for path in place.agents.paths()]


def test_twenty_keys_added_at_once_fill_three_agents(place: Place) -> None:
    run_at_once(place, ADD)
    assert held(place) == [8, 8, 4]
    assert len(place.pids()) == 3


def add_keys(place: Place, count: int, *, may_start: bool = True) -> list[Agent | None]:
    return [
        place.agents.add_key(
            generate_key(), comment=f"dm-{number} via gw", lifetime_s=600, may_start=may_start,
            timeout_s=LIMIT_S,
        )
        for number in range(count)
    ]  # fmt: skip


def test_an_agent_is_full_before_the_next_is_started(place: Place) -> None:
    assert add_keys(place, 1, may_start=False) == [None]
    add_keys(place, 9)
    assert held(place) == [8, 1]
    first = Agent(place.path)
    first.remove(first.identities()[3].blob)
    add_keys(place, 2)
    assert held(place) == [8, 2]


def test_a_key_and_its_certificate_count_once(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    add_keys(place, 6)
    key, certificate = certified_key(tmp_path, authority, "me")
    agent = place.agents.add_key(
        key, comment="dm-x", lifetime_s=600, may_start=True, timeout_s=LIMIT_S
    )
    assert agent is not None
    add(agent, key, certificate, None)
    assert held(place) == [8], "while a machine wakes, both are held"
    add_keys(place, 1)
    assert held(place) == [9], "of eight sessions"
    agent.remove(key.blob)
    add_keys(place, 1)
    assert held(place) == [8, 1]


def test_agents_that_hold_nothing_are_ended_and_no_others(place: Place) -> None:
    add_keys(place, 9)
    assert place.agents.end() == []
    assert held(place) == [8, 1]
    first, second = map(Agent, place.agents.paths())
    for identity in first.identities():
        first.remove(identity.blob)
    assert place.agents.end() == []
    assert place.agents.paths() == [second.path]
    assert len(place.pids()) == 1
    add_keys(place, 1)
    assert held(place) == [2], "the one with room comes first"
    assert place.agents.end(unless_used=False) == []
    assert (place.agents.paths(), place.pids()) == ([], [])
    assert os.listdir(place.sockets) == ["lock"]


def test_an_agent_is_not_ended_while_another_process_fills_it(place: Place) -> None:
    place.ensure()
    with try_lock_of(place), pytest.raises(AgentUnavailable, match="another dcs-proxy"):
        place.agents.end(timeout_s=0.05)
    stop = threading.Event()

    def end_again_and_again() -> None:
        while not stop.is_set():
            place.agents.end(timeout_s=LIMIT_S)

    ender = threading.Thread(target=end_again_and_again)
    ender.start()
    try:
        for _ in range(20):
            key = generate_key()
            agent = place.agents.add_key(
                key, comment="dm-foo", lifetime_s=600, may_start=True, timeout_s=LIMIT_S
            )
            assert agent is not None and agent.holds(key.blob)
            agent.remove(key.blob)
    finally:
        stop.set()
        ender.join(LIMIT_S)


def try_lock_of(place: Place) -> FileLock:
    os.makedirs(place.sockets, 0o700, exist_ok=True)
    lock = try_lock(place.lock_path)
    assert lock is not None
    return lock


OLD_AGENT = """exec >/dev/null 2>&1
trap 'kill "$SSH_AGENT_PID" $!; exit' TERM
while :; do sleep 600 & wait $!; done"""


def test_agents_of_an_earlier_version_are_filled_and_ended(place: Place) -> None:
    # They ran in front of a shell that looked after them, and had numbers from 00 to 63.
    old = os.path.join(place.sockets, "03.sock")
    os.mkdir(place.sockets, 0o700)
    shell = subprocess.Popen(["ssh-agent", "-a", old, "/bin/sh", "-c", OLD_AGENT])
    wait_until(lambda: agent_pid(old) is not None)
    add_keys(place, 9)
    assert place.agents.paths() == [place.path, old]
    assert sorted(held(place)) == [1, 8]
    assert place.agents.end(unless_used=False) == []
    shell.wait(LIMIT_S)
    wait_until(lambda: place.pids() == [])


def test_an_agent_is_ended_where_the_kernel_does_not_tell_which_it_is(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "PEER_OPTIONS", ())
    add_keys(place, 1)
    assert place.agents.end(unless_used=False) == []
    assert place.pids() == []


def test_a_stopped_agent_is_ended_with_the_others(place: Place) -> None:
    add_keys(place, 1)
    os.kill(place.the_pid(), signal.SIGSTOP)
    assert place.agents.end() == [], "it is left alone, and is no failure"
    assert place.the_pid()
    assert place.agents.end(unless_used=False) == []
    assert place.pids() == []


def leave_stale_socket(place: Place) -> None:
    os.mkdir(place.sockets, 0o700)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(place.path)


def test_a_killed_agent_is_replaced(place: Place) -> None:
    place.ensure()
    killed = place.the_pid()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not place.pids())
    assert os.path.exists(place.path)
    assert place.ensure().identities() == []
    assert place.the_pid() != killed


def test_an_agent_that_ends_while_asked_is_replaced(place: Place) -> None:
    os.mkdir(place.sockets, 0o700)
    dying = FakeAgent(place.path)

    def end(_request: bytes) -> bytes:
        dying.listener.close()
        return b""

    dying.answer = end
    dying.thread.start()
    assert place.ensure().identities() == []
    dying.thread.join()
    place.the_pid()


def test_a_stopped_agent_is_left_alone_and_another_started(place: Place) -> None:
    add_keys(place, 1)
    pid = place.the_pid()
    os.kill(pid, signal.SIGSTOP)
    add_keys(place, 1)
    os.kill(pid, signal.SIGCONT)
    assert held(place) == [1, 1]


def test_a_stopped_agent_is_waited_for_once(place: Place, tmp_path: Path) -> None:
    add_keys(place, 1)
    os.kill(place.the_pid(), signal.SIGSTOP)
    log = tmp_path / "log"
    agents = PrivateAgents(place.directory, Log(str(log)))
    for may_start in (False, True):
        agents.add_key(
            generate_key(), comment="dm-foo", lifetime_s=600, may_start=may_start, timeout_s=LIMIT_S
        )
    agents.end()
    assert log.read_text().count("agent-skipped") == 1


def test_a_lock_that_is_held_too_long_is_named_with_its_holder(place: Place) -> None:
    os.mkdir(place.sockets, 0o700)
    with open(place.lock_path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AgentUnavailable, match="another dcs-proxy has held"):
            place.ensure(timeout_s=0.1)
        lock.write("4242\n")
        lock.flush()
        with pytest.raises(AgentUnavailable) as unavailable:
            place.ensure(timeout_s=0.1)
    assert "another dcs-proxy (process 4242) has held" in unavailable.value.message
    assert place.lock_path in unavailable.value.message
    place.ensure()


def test_what_is_no_socket_stays_where_it_is(place: Place) -> None:
    os.mkdir(place.sockets, 0o700)
    Path(place.path).write_text("mine")
    assert place.ensure().path.endswith("/agent-2.sock")
    assert Path(place.path).read_text() == "mine"
    os.unlink(place.path)
    os.symlink("elsewhere", place.path)
    assert place.ensure().path.endswith("/agent-2.sock")
    assert os.readlink(place.path) == "elsewhere"


def test_a_directory_that_others_write_to_is_refused(place: Place) -> None:
    os.mkdir(place.sockets)
    os.chmod(place.sockets, 0o770)
    with pytest.raises(StateError) as refused:
        place.ensure()
    assert "chmod 700" in refused.value.hint


def test_a_lock_that_cannot_be_opened_is_a_state_error(place: Place) -> None:
    os.makedirs(place.lock_path)
    os.chmod(place.sockets, 0o700)
    with pytest.raises(StateError, match="cannot open the lock"):
        place.ensure()


def test_without_ssh_agent_the_package_to_install_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f":{place.directory}:bin")
    monkeypatch.setattr(agent_process, "_SYSTEM_DIRECTORIES", ())
    with pytest.raises(AgentUnavailable, match="not installed") as unavailable:
        place.ensure()
    assert unavailable.value.hint.startswith("install OpenSSH's client")


def test_ssh_agent_is_found_without_a_path(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    place.ensure()


def test_the_complaint_of_ssh_agent_is_passed_on_clean(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "#!/bin/sh\nprintf '\\033[31mno\\nway' >&2; exit 1\n")
    with pytest.raises(AgentUnavailable) as unavailable:
        place.ensure()
    expected = f'ssh-agent does not listen on {place.path}: "[31mno way"'
    assert unavailable.value.message == expected


def test_an_ssh_agent_that_fails_in_silence_is_reported(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "#!/bin/sh\nexit 7\n")
    with pytest.raises(AgentUnavailable, match="exit status 7"):
        place.ensure()


def test_an_ssh_agent_that_cannot_be_run_is_reported(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, "#!/nowhere/sh\n")
    with pytest.raises(AgentUnavailable, match=r"cannot run .*/bin/ssh-agent: No such file"):
        place.ensure()


def test_an_ssh_agent_that_does_not_start_in_time_is_reported_and_ended(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, f"#!{sys.executable}\nimport signal\nsignal.pause()\n")
    with pytest.raises(AgentUnavailable, match="did not start in time"):
        place.ensure(timeout_s=0.5)
    assert place.pids() == []


RECORDER = f"""#!{sys.executable}
import json, os, pathlib, sys
links = [os.readlink(f"/proc/self/fd/{{fd}}") for fd in (0, 1)]
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
seen = [dict(os.environ), os.getcwd(), os.getsid(0) == os.getpid(), links, fds]
pathlib.Path(__file__).with_name("seen").write_text(json.dumps(seen))
os.execv({shutil.which("ssh-agent")!r}, sys.argv)
"""


def test_ssh_agent_inherits_neither_secrets_nor_files_nor_the_terminal(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(tmp_path, monkeypatch, RECORDER)
    for name in ("DEDALUS_API_KEY", "DEDALUS_X_API_KEY"):
        monkeypatch.setenv(name, "dsk-secret")
    inherited, ours = os.pipe()
    caller = start_ensure(place, subprocess.DEVNULL, pass_fds=(inherited,))
    # Returns at the end of both pipes: a daemon that held one would hang it.
    output, complaint = caller.communicate(timeout=LIMIT_S)
    os.close(inherited)
    os.close(ours)
    assert (caller.returncode, output, complaint) == (0, "ready\n", "")

    environment, directory, leads_session, links, fds = json.loads(
        (tmp_path / "bin" / "seen").read_text()
    )
    # LC_CTYPE is Python's own doing (PEP 538).
    assert environment.keys() - {"LC_CTYPE"} == {"PATH"}
    assert (directory, leads_session, links) == ("/", True, ["/dev/null"] * 2)
    assert len(fds) == 4  # stdin, stdout, stderr, and the directory being listed

    process = Path(f"/proc/{place.the_pid()}")
    # Only root may look: ssh-agent forbids tracing.
    with contextlib.suppress(PermissionError):
        assert b"dsk-secret" not in (process / "environ").read_bytes()
        links = [os.readlink(link) for link in (process / "fd").iterdir()]
        assert {link.split(":")[0] for link in links} == {"/dev/null", "pipe", "socket"}, links


def test_the_agent_is_out_of_reach_of_ctrl_c(place: Place) -> None:
    caller = start_ensure(place, subprocess.DEVNULL)
    caller.communicate(timeout=LIMIT_S)
    pid = place.the_pid()
    assert caller.pid not in (os.getpgid(pid), os.getsid(pid))
