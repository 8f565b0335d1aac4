from __future__ import annotations

import base64
import contextlib
import fcntl
import json
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dcs_proxy.errors import AgentRefused, AgentUnavailable, StateError
from dcs_proxy.ssh import private_agents as private_agent
from dcs_proxy.ssh.agent import Agent, Destination
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import KeyPair, public_line
from dcs_proxy.ssh.private_agents import ensure_private_agent
from tests.fake_agent import FakeAgent, fake_agent, framed, socket_directory
from tests.integration.harness import agent_pid

LIMIT_S = 60


@dataclass(frozen=True)
class Place:
    """Where a private agent lives."""

    directory: str

    @property
    def path(self) -> str:
        return os.path.join(self.directory, "state", "agent.sock")

    @property
    def lock_path(self) -> str:
        return os.path.join(self.directory, "agent.lock")

    def ensure(self, timeout_s: float = LIMIT_S) -> Agent:
        return ensure_private_agent(self.path, self.lock_path, timeout_s=timeout_s)

    def pids(self) -> list[int]:
        """Return the processes that were started as `... -a PATH` and have not ended."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if b"-a" in words and self.path.encode() in words:
                    found.append(int(entry.name))
        return found

    def the_pid(self) -> int:
        (pid,) = self.pids()
        return pid

    def watcher(self) -> int:
        """Return the shell that ends the agent when it is idle: to the kernel it is who listens."""
        pid = agent_pid(self.path)
        assert pid is not None and pid != self.the_pid()
        return pid


@pytest.fixture
def place() -> Iterator[Place]:
    with socket_directory() as directory:
        place = Place(directory)
        try:
            yield place
        finally:
            for pid in filter(None, [agent_pid(place.path), *place.pids()]):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not place.pids())


@dataclass(frozen=True)
class Authority:
    """A certificate authority made by ssh-keygen."""

    path: Path

    @property
    def line(self) -> str:
        return " ".join(self.path.with_suffix(".pub").read_text().split()[:2])

    @property
    def blob(self) -> bytes:
        return blob_of(self.line)

    def certify(self, public: Path, *options: str) -> Path:
        run("ssh-keygen", "-q", "-s", str(self.path), "-I", "id", *options, str(public))
        return public.with_name(public.name.replace(".pub", "-cert.pub"))


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    return make_authority(tmp_path, "ca")


def make_authority(directory: Path, name: str) -> Authority:
    return Authority(make_key(directory / name))


def make_key(path: Path) -> Path:
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path))
    return path


def blob_of(line: str) -> bytes:
    return base64.b64decode(line.split()[1])


def run(*command: str, **environment: str) -> str:
    done = subprocess.run(
        command,
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def listed(agent: Agent) -> list[str]:
    """Return what ssh-add shows, one line for each identity."""
    done = subprocess.run(
        ["ssh-add", "-L"],
        env={**os.environ, "SSH_AUTH_SOCK": agent.path},
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return done.stdout.splitlines() if done.returncode == 0 else []


def certified_key(directory: Path, authority: Authority, principal: str) -> tuple[KeyPair, Path]:
    """Return a key pair and the file of its user certificate."""
    key = generate_key()
    public = directory / "user.pub"
    public.write_text(public_line(key.public) + "\n")
    return key, authority.certify(public, "-n", principal, "-V", "-5m:+1h")


def add(agent: Agent, key: KeyPair, certificate: Path, destination: Destination | None) -> bool:
    blob = blob_of(certificate.read_text())
    return agent.add_certificate(
        key, blob, comment="dm-foo", lifetime_s=600, destination=destination
    )


def install(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program of ours before the real ssh-agent."""
    program = directory / "bin" / "ssh-agent"
    program.parent.mkdir()
    program.write_text(script)
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(program.parent) + os.pathsep + os.environ["PATH"])


# --- what the real agent takes ------------------------------------------------------------------


@pytest.mark.parametrize("bound", [True, False])
def test_a_certificate_alone_goes_in_and_out(
    place: Place, authority: Authority, tmp_path: Path, bound: bool
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, "me")
    destination = Destination("gw.example", authority.blob) if bound else None
    assert add(agent, key, certificate, destination) is bound
    expected = " ".join([*certificate.read_text().split()[:2], "dm-foo"])
    assert listed(agent) == [expected]
    blob = blob_of(expected)
    assert agent.holds(blob) and not agent.holds(key.blob) and not agent.holds(authority.blob)
    assert agent.remove(blob) and not agent.remove(blob)
    assert listed(agent) == []


def test_a_bare_key_goes_in_and_out(place: Place) -> None:
    agent = place.ensure()
    key = generate_key()
    assert not agent.add_key(key, comment="dm-foo", lifetime_s=600)
    assert listed(agent) == [f"{public_line(key.public)} dm-foo"]
    assert agent.holds(key.blob)
    assert agent.remove(key.blob) and listed(agent) == []


def test_an_identity_ends_with_its_lifetime(place: Place, authority: Authority) -> None:
    agent = place.ensure()
    key = generate_key()
    destination = Destination("gw.example", authority.blob)
    assert agent.add_key(key, comment="", lifetime_s=1, destination=destination)
    wait_until(lambda: not agent.identities())


def test_an_agent_without_the_constraint_takes_the_lifetime_alone(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, "me")
    with fake_agent() as old:
        old.answer = lambda request: refuse_constraint(agent.path, request)
        bound = add(Agent(old.path), key, certificate, Destination("gw.example", authority.blob))
    assert not bound
    assert len(old.requests) == 2 and len(listed(agent)) == 1


def refuse_constraint(path: str, request: bytes) -> bytes:
    if b"restrict-destination" in request:
        return framed(b"\x05")(request)
    with socket.socket(socket.AF_UNIX) as real:
        real.connect(path)
        real.sendall(framed(request)(request))
        return real.recv(4096)


def test_a_locked_agent_is_found_and_its_refusal_says_how_to_unlock(
    place: Place, tmp_path: Path
) -> None:
    agent = place.ensure()
    askpass = tmp_path / "askpass"
    askpass.write_text("#!/bin/sh\necho secret\n")
    askpass.chmod(0o700)
    environment = {
        "SSH_AUTH_SOCK": agent.path,
        "SSH_ASKPASS": str(askpass),
        "SSH_ASKPASS_REQUIRE": "force",
        "DISPLAY": ":0",
    }
    run("ssh-add", "-x", **environment)
    locked = place.ensure()
    assert locked.identities() == []
    with pytest.raises(AgentRefused) as refused:
        locked.add_key(generate_key(), comment="", lifetime_s=60)
    assert agent.path in refused.value.message and "ssh-add -X" in refused.value.hint
    run("ssh-add", "-X", **environment)
    locked.add_key(generate_key(), comment="", lifetime_s=60)


# --- logins through the real ssh and sshd -------------------------------------------------------


@dataclass(frozen=True)
class Gateway:
    """A real sshd with a certified host key, run anew for each connection (`sshd -i`)."""

    command: str
    known_hosts: Path

    def ssh(self, agent: Agent, *options: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "IdentityAgent": agent.path,
            "IdentitiesOnly": "yes",
            "HostKeyAlias": "gw.example",
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": "none",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ProxyCommand": self.command,
        }
        words = [word for pair in settings.items() for word in ("-o", "=".join(pair))]
        return subprocess.run(
            ["ssh", "-F", "none", "-v", *words, *options, f"{user_name()}@dm-foo", "echo in"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )


def user_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def make_gateway(directory: Path, host_ca: Authority, user_ca: Authority) -> Gateway:
    directory.mkdir()
    host_key = make_key(directory / "host")
    certificate = host_ca.certify(host_key.with_suffix(".pub"), "-h", "-n", "gw.example")
    if os.geteuid() == 0:
        # Debian's sshd insists on it when root runs it; init makes it otherwise.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    config = directory / "sshd_config"
    config.write_text(
        f"HostKey {host_key}\n"
        f"HostCertificate {certificate}\n"
        f"TrustedUserCAKeys {user_ca.path}.pub\n"
        "AuthorizedKeysFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin yes\nUsePAM no\nStrictModes no\nPidFile none\nLogLevel ERROR\n"
    )
    known_hosts = directory / "known_hosts"
    known_hosts.write_text(f"@cert-authority gw.example {host_ca.line}\n")
    return Gateway(f"/usr/sbin/sshd -i -e -f {config}", known_hosts)


def test_a_bound_certificate_logs_in_to_its_gateway(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, user_name())
    assert add(agent, key, certificate, Destination("gw.example", authority.blob))
    gateway = make_gateway(tmp_path / "gateway", authority, authority)
    done = gateway.ssh(agent, "-i", str(certificate))
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def test_a_bound_certificate_does_not_log_in_anywhere_else(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, user_name())
    stranger = make_authority(tmp_path, "stranger")
    gateway = make_gateway(tmp_path / "gateway", stranger, authority)
    destinations = [
        Destination("gw.example", authority.blob),
        Destination("other.example", stranger.blob),
    ]
    for destination in destinations:
        assert add(agent, key, certificate, destination)
        done = gateway.ssh(agent, "-i", str(certificate))
        assert done.returncode == 255 and "Permission denied" in done.stderr, done.stderr
    # The gateway is not at fault: unbound, the same certificate is let in.
    assert not add(agent, key, certificate, None)
    assert gateway.ssh(agent, "-i", str(certificate)).stdout == "in\n"


def test_a_bare_key_in_the_agent_logs_in_with_a_certificate_from_a_file(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, user_name())
    agent.add_key(key, comment="", lifetime_s=600)
    gateway = make_gateway(tmp_path / "gateway", authority, authority)
    done = gateway.ssh(
        agent, "-i", str(tmp_path / "user.pub"), "-o", f"CertificateFile={certificate}"
    )
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


# --- the private agent --------------------------------------------------------------------------


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


# --- starting ssh-agent -------------------------------------------------------------------------


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
