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
import time
from pathlib import Path

import pytest

from dcs_proxy.errors import AgentUnavailable, StateError
from dcs_proxy.ssh import private_agents as private_agent
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.private_agents import ensure_private_agent
from tests.fake_agent import FakeAgent
from tests.integration.agents import (
    LIMIT_S,
    Place,
    install,
    wait_until,
)


def test_the_private_agent_is_started_once_and_found_again(place: Place) -> None:
    place.ensure()
    pid = place.the_pid()
    place.ensure()
    assert place.the_pid() == pid
    assert os.stat(place.path).st_mode & 0o777 == 0o600
    assert os.stat(os.path.dirname(place.path)).st_mode & 0o777 == 0o700


ENSURE = """
import sys
from dcs_proxy.ssh.private_agents import ensure_private_agent
print("ready", flush=True)
sys.stdin.read()
ensure_private_agent(sys.argv[1], sys.argv[2], timeout_s=60).identities()
"""


def start_ensure(
    place: Place, stdin: int, *, pass_fds: tuple[int, ...] = ()
) -> subprocess.Popen[str]:
    """Start a process, in a session of its own, that says "ready" and waits for stdin to end."""
    return subprocess.Popen(
        [sys.executable, "-c", ENSURE, place.path, place.lock_path],
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
    barrier, release = os.pipe()
    callers = [start_ensure(place, barrier) for _ in range(20)]
    os.close(barrier)
    for caller in callers:
        assert caller.stdout is not None and caller.stdout.readline() == "ready\n"
    os.close(release)
    complaints = [caller.communicate(timeout=LIMIT_S)[1] for caller in callers]
    assert complaints == [""] * 20
    assert [caller.returncode for caller in callers] == [0] * 20
    assert starts.read_text() == "start\n"
    place.the_pid()


def leave_stale_socket(place: Place) -> None:
    os.mkdir(os.path.dirname(place.path), 0o700)
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
    os.mkdir(os.path.dirname(place.path), 0o700)
    dying = FakeAgent(place.path)

    def end(_request: bytes) -> bytes:
        dying.listener.close()
        return b""

    dying.answer = end
    dying.thread.start()
    assert place.ensure().identities() == []
    dying.thread.join()
    place.the_pid()


def test_a_stopped_agent_is_reported_in_time_and_left_alone(place: Place) -> None:
    place.ensure()
    pid = place.the_pid()
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(AgentUnavailable, match="did not answer within") as unavailable:
        place.ensure(timeout_s=0.3)
    assert place.path in unavailable.value.message and "end that agent" in unavailable.value.hint
    os.kill(pid, signal.SIGCONT)
    place.ensure()
    assert place.the_pid() == pid


def test_a_lock_that_is_held_too_long_is_named_with_its_holder(place: Place) -> None:
    with open(place.lock_path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(AgentUnavailable, match="another process has held"):
            place.ensure(timeout_s=0.1)
        lock.write("4242\n")
        lock.flush()
        with pytest.raises(AgentUnavailable) as unavailable:
            place.ensure(timeout_s=0.1)
    assert "process 4242 has held" in unavailable.value.message
    assert place.lock_path in unavailable.value.message
    place.ensure()


def test_a_held_lock_does_not_keep_anyone_from_a_running_agent(place: Place) -> None:
    place.ensure()
    with open(place.lock_path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        place.ensure()


def test_what_is_no_socket_stays_where_it_is(place: Place) -> None:
    directory = os.path.dirname(place.path)
    os.mkdir(directory, 0o700)
    Path(place.path).write_text("mine")
    with pytest.raises(AgentUnavailable, match="is not a socket"):
        place.ensure()
    assert Path(place.path).read_text() == "mine"
    os.unlink(place.path)
    os.symlink("elsewhere", place.path)
    with pytest.raises(AgentUnavailable, match="is not a socket"):
        place.ensure()


def test_a_path_too_long_for_a_socket_is_refused_with_the_limit(place: Place) -> None:
    path = os.path.join(place.directory, "x" * (107 - len(place.directory)))
    with pytest.raises(AgentUnavailable, match="has 108 bytes; 107 are allowed"):
        ensure_private_agent(path, place.lock_path, timeout_s=LIMIT_S)


def test_a_directory_that_others_write_to_is_refused(place: Place) -> None:
    os.mkdir(os.path.dirname(place.path))
    os.chmod(os.path.dirname(place.path), 0o770)
    with pytest.raises(StateError) as refused:
        place.ensure()
    assert "chmod 700" in refused.value.hint


def test_a_lock_that_cannot_be_opened_is_a_state_error(place: Place) -> None:
    os.mkdir(place.lock_path)
    with pytest.raises(StateError, match="cannot open the lock"):
        place.ensure()


def test_without_ssh_agent_the_package_to_install_is_named(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", f":{place.directory}:bin")
    monkeypatch.setattr(private_agent, "_SYSTEM_DIRECTORIES", ())
    with pytest.raises(AgentUnavailable, match="not installed") as unavailable:
        place.ensure()
    assert unavailable.value.hint == "install openssh-client"


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
        assert {link.split(":")[0] for link in links} == {"/dev/null", "socket"}, links


def test_an_agent_that_holds_nothing_for_long_ends(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private_agent, "_IDLE_CHECK_S", 0.1)
    monkeypatch.setattr(private_agent, "_IDLE_CHECKS", 3)
    agent = place.ensure()
    agent.add_key(generate_key(), comment="", lifetime_s=2)
    assert place.the_pid()
    wait_until(lambda: place.pids() == [] and not Path(place.path).exists())
    assert place.ensure().identities() == []


def test_an_agent_that_holds_something_stays(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_agent, "_IDLE_CHECK_S", 0.05)
    monkeypatch.setattr(private_agent, "_IDLE_CHECKS", 2)
    agent = place.ensure()
    agent.add_key(generate_key(), comment="", lifetime_s=600)
    pid = place.the_pid()
    looks = [seen_children(place.watcher()) for _ in range(200)]
    assert len(set().union(*looks)) > 4, "it was not looked at"
    assert place.the_pid() == pid


def seen_children(pid: int) -> set[str]:
    time.sleep(0.01)
    return set(Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


def test_the_watcher_ends_with_its_agent(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(private_agent, "_IDLE_CHECK_S", 0.1)
    place.ensure()
    watcher = place.watcher()
    os.kill(place.the_pid(), signal.SIGKILL)
    wait_until(lambda: not Path(f"/proc/{watcher}").exists() or is_zombie(watcher))


def is_zombie(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_the_agent_is_out_of_reach_of_ctrl_c(place: Place) -> None:
    caller = start_ensure(place, subprocess.DEVNULL)
    caller.communicate(timeout=LIMIT_S)
    pid = place.the_pid()
    assert caller.pid not in (os.getpgid(pid), os.getsid(pid))
