"""The private ssh-agents: started on demand and used by every later ssh.

ssh checks the signature of every certificate that its agent lists, which takes about a millisecond
each, and accepts no list over 256 KiB (OpenSSH's authfd.c), which about five hundred certificates
fill.  So the machines are spread over several agents.

An agent exits when it has held nothing for a day.  ssh-agent exits with the command that it is
started with, and that command is a shell script which looks at the agent every minute.
"""

from __future__ import annotations

import os
import select
import stat
import time
import zlib
from typing import TYPE_CHECKING

from dcs_proxy.errors import AgentUnavailable, StateError, clean_text, quote_server
from dcs_proxy.local.files import make_private_directory, remove_file
from dcs_proxy.local.lock import lock_holder, try_lock
from dcs_proxy.local.log import Log
from dcs_proxy.local.programs import find_program, start
from dcs_proxy.names import MachineName
from dcs_proxy.ssh.agent import Agent, AgentMissing

if TYPE_CHECKING:
    import subprocess

# An agent and its shell take 2 MiB, and only those in use are started.
AGENTS = 64
_MAX_PATH = 107  # bytes; sun_path of sockaddr_un without its final NUL (unix(7))
# The BSDs allow 103, and on some systems ssh-agent binds to a longer, temporary name first.
_MAX_OWN_PATH = 100
_POLL_S = 0.02
_START_S = 1.0  # after that, the agent is one that keeps its stderr open, and is polled
_LEAST_PROBE_S = 0.1
_SYSTEM_DIRECTORIES = ("/usr/bin", "/usr/local/bin")
_IDLE_CHECK_S, _IDLE_CHECKS = 60, 24 * 60
# `ssh-add -l` exits with 1 if the agent holds nothing, and with 2 if there is no agent.  The kernel
# names the shell as the process behind the socket (SO_PEERCRED), so it passes signals on.
_WATCH = """\
exec >/dev/null 2>&1
end() { kill "$SSH_AGENT_PID" $!; exit; }
trap end HUP INT TERM
empty=0
while [ $empty -lt "$2" ]; do
    sleep "$1" &
    wait $!
    "$0" -l
    case $? in
        0) empty=0 ;;
        1) empty=$((empty + 1)) ;;
        *) exit ;;
    esac
done
kill "$SSH_AGENT_PID"
"""
_START_HINT = "check that ssh-agent works: ssh-agent true && echo ok"


class PrivateAgents:
    """The private agents of one state directory, whose sockets have a directory of their own.

    That directory is in `state_directory`, unless paths there are too long for a socket.  It is
    created if missing.  Raises StateError if it cannot be trusted or used.
    """

    def __init__(self, state_directory: str) -> None:
        self.directory = os.path.join(state_directory, "sockets")
        if len(os.fsencode(self.directory)) + len("/00.sock") > _MAX_OWN_PATH:
            self.directory = _short_directory(state_directory)
        # A user who can write to it could replace our agent by another.
        make_private_directory(self.directory)

    def path(self, name: MachineName) -> str:
        """Return the socket of the agent that holds a machine's identities."""
        number = zlib.crc32(name.encode()) % AGENTS
        return os.path.join(self.directory, f"{number:02}.sock")

    def paths(self) -> list[str]:
        """Return the existing sockets; their agents may have exited."""
        names = sorted(os.listdir(self.directory))
        return [os.path.join(self.directory, name) for name in names if name.endswith(".sock")]

    def ensure(self, name: MachineName, *, timeout_s: float, log: Log | None = None) -> Agent:
        """Return the agent of a machine's identities: see :func:`ensure_private_agent`."""
        path = self.path(name)
        lock = f"{path.removesuffix('.sock')}.lock"
        return ensure_private_agent(path, lock, timeout_s=timeout_s, log=log)


def _short_directory(state_directory: str) -> str:
    """Return the directory for the sockets of a state directory with a long path."""
    import hashlib

    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # Not TMPDIR: the path must be the same for a desktop program, where that may differ.
    base = os.path.join("/tmp", f"dcs-proxy-{os.geteuid()}")
    if runtime.startswith("/") and len(os.fsencode(runtime)) < 50 and os.path.isdir(runtime):
        base = os.path.join(runtime, "dcs-proxy")
    make_private_directory(base)
    return os.path.join(base, hashlib.sha256(os.fsencode(state_directory)).hexdigest()[:16])


def ensure_private_agent(
    path: str, lock_path: str, *, timeout_s: float, log: Log | None = None
) -> Agent:
    """Return the private agent on the socket `path`, starting `ssh-agent` if none answers there.

    Both paths are absolute; the socket's directory is created if missing.  Any number of
    processes may call this at the same time: the one with the lock at `lock_path` starts the
    agent.  Raises AgentUnavailable if no agent of ours answers within `timeout_s`, and StateError
    if the directory or the lock file cannot be used.
    """
    _check_length(path)
    make_private_directory(os.path.dirname(path))
    deadline = time.monotonic() + timeout_s
    while not _answers_unlocked(path, deadline):
        if (lock := try_lock(lock_path)) is not None:
            with lock:
                _start_if_missing(path, deadline)
            break
        if time.monotonic() >= deadline:
            holder = lock_holder(lock_path)
            name = "another process" if holder is None else f"process {holder}"
            raise AgentUnavailable(
                f"{name} has held {clean_text(lock_path)} for {timeout_s:.3g} s without starting"
                " the private agent",
                hint="end that process if it is stopped (fuser shows who holds a file)",
            )
        time.sleep(_POLL_S)
    return Agent(path, timeout_s=timeout_s, peer_uid=os.geteuid(), log=log)


def _check_length(path: str) -> None:
    length = len(os.fsencode(path))
    if length > _MAX_PATH:
        raise AgentUnavailable(
            f"the path of the agent's socket {clean_text(path)} has {length} bytes;"
            f" {_MAX_PATH} are allowed",
            hint="set DCS_PROXY_HOME to a shorter directory",
        )


def _answers_unlocked(path: str, deadline: float) -> bool:
    try:
        return _answers(path, deadline)
    except AgentUnavailable:
        if time.monotonic() >= deadline:
            raise
        # It may have exited while we asked.  The process with the lock asks again.
        return False


def _answers(path: str, deadline: float) -> bool:
    """Return whether an agent of ours answers; False if none listens.

    Raises AgentUnavailable if something else is there or answers, StateError if it is unreadable.
    """
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return False
    except OSError as error:
        raise StateError(
            f"cannot access {clean_text(path)}: {error.strerror}",
            hint=f"chmod 700 '{clean_text(os.path.dirname(path))}'",
        ) from error
    if not stat.S_ISSOCK(mode):
        raise AgentUnavailable(
            f"{clean_text(path)} is not a socket, but the private agent needs that path",
            hint="move it away",
        )
    # Connecting proves nothing: the kernel accepts connections for a stopped agent too.
    limit = max(_remaining(deadline), _LEAST_PROBE_S)
    try:
        Agent(path, timeout_s=limit, peer_uid=os.geteuid()).identities()
    except AgentMissing:
        return False
    except AgentUnavailable as error:
        hint = "end that agent (pgrep -a ssh-agent) and try again; a new one will start"
        raise AgentUnavailable(error.message, hint=hint) from error
    return True


def _start_if_missing(path: str, deadline: float) -> None:
    """Start the agent unless it answers by now.  The caller holds the lock."""
    if _answers(path, deadline):
        return
    remove_file(path)
    errors_in, errors_out = os.pipe()
    try:
        process = _start(path, errors_out)
        # ssh-agent listens before it starts the shell, which closes stderr and so the pipe.
        closing = select.poll()
        closing.register(errors_in)
        closing.poll(min(_START_S, _remaining(deadline)) * 1000)
        while not _answers(path, deadline):
            if (reason := _give_up(process, errors_in, deadline)) is not None:
                message = f"ssh-agent does not listen on {clean_text(path)}: {reason}"
                raise AgentUnavailable(message, hint=_START_HINT)
            time.sleep(_POLL_S)
    finally:
        os.close(errors_in)


def _give_up(process: subprocess.Popen[bytes], errors: int, deadline: float) -> str | None:
    """Return why it is useless to wait longer for the agent; None if it is not."""
    status = process.poll()
    if status is not None:
        return _read_error(errors) or f"exit status {status}"
    if time.monotonic() < deadline:
        return None
    process.kill()  # it does not hold a key yet
    process.wait()
    return "it did not start in time"


def _start(path: str, errors: int) -> subprocess.Popen[bytes]:
    """Start the agent with the descriptor `errors` as its stderr; close that here."""
    program = find_program("ssh-agent", os.environ, _SYSTEM_DIRECTORIES)
    if program is None:
        raise AgentUnavailable("ssh-agent is not installed", hint="install openssh-client")
    try:
        return start(
            [
                program, "-a", path, "/bin/sh", "-c", _WATCH,
                os.path.join(os.path.dirname(program), "ssh-add"),
                str(_IDLE_CHECK_S), str(_IDLE_CHECKS),
            ],
            # Not ours: `ssh ... 2>&1 | cat` would hang while the agent keeps it open.
            stderr=errors,
            cwd="/",
            # Nothing of our own environment must live as long as the agent.
            environment={"PATH": os.defpath},
            # Ctrl-C ends every process in ssh's group.
            new_session=True,
        )  # fmt: skip
    except OSError as error:
        message = f"cannot run {clean_text(program)}: {error.strerror}"
        raise AgentUnavailable(message, hint=_START_HINT) from error
    finally:
        os.close(errors)


def _read_error(errors: int) -> str:
    """Return what the agent has written so far, quoted; it may still hold the pipe open."""
    os.set_blocking(errors, False)
    try:
        text = os.read(errors, 4096).decode(errors="replace")
    except BlockingIOError:
        return ""
    return quote_server(text) if text.strip() else ""


def _remaining(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.0)
