"""One private ssh-agent: start its process on a socket, check that it answers, end it.

The agent runs in the foreground (``-D``), so that the process that we start is the one that
listens.  Its process id is in a file beside the socket, for systems whose kernel does not tell
which process is behind a socket.  The caller holds a lock on the directory.
"""

from __future__ import annotations

import contextlib
import os
import signal
import stat
import time
from typing import TYPE_CHECKING

from dcs_proxy.errors import AgentUnavailable
from dcs_proxy.local.files import read_small, remove_file, write_atomically
from dcs_proxy.local.programs import find_program, install_hint, start
from dcs_proxy.ssh.agent import LIST_S, Agent, AgentMissing, Identity
from dcs_proxy.text import clean_text, quote_server

if TYPE_CHECKING:
    import subprocess

_SYSTEM_DIRECTORIES = ("/usr/bin", "/usr/local/bin")
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.001, 0.02
_LEAST_PROBE_S = 0.1
_END_S = 2.0
_START_HINT = "check that ssh-agent works: ssh-agent true && echo ok"


def agent_program() -> str:
    """Return the path of ``ssh-agent``.  Raises AgentUnavailable if it is not installed."""
    program = find_program("ssh-agent", os.environ, _SYSTEM_DIRECTORIES)
    if program is None:
        raise AgentUnavailable("ssh-agent is not installed", hint=install_hint(os.environ))
    return program


def held_by(path: str, timeout_s: float = LIST_S) -> list[Identity]:
    """Return the identities of the agent on the socket `path`.

    Raises AgentMissing if none listens, AgentUnavailable or AgentRefused if there is no valid
    answer.
    """
    # A successful connect is not enough: the kernel accepts connections for a stopped agent too.
    return Agent(path, timeout_s=timeout_s).identities()


def is_socket(path: str) -> bool:
    """Return whether there is a socket at `path`, whether or not anything listens."""
    try:
        return stat.S_ISSOCK(os.lstat(path).st_mode)
    except OSError:
        return False


def start_agent(path: str, deadline: float) -> None:
    """Start an agent on the socket `path`, which must not exist, and wait until it answers.

    Raises AgentUnavailable if it does not by `deadline` (monotonic), StateError if the directory
    cannot be written.
    """
    errors, errors_in = os.pipe()
    try:
        process = _spawn(path, errors_in)
        pause_s = _FIRST_PAUSE_S
        while not _answers(path, deadline):
            if (reason := _give_up(process, errors, deadline)) is not None:
                remove_file(path)
                message = f"ssh-agent does not listen on {clean_text(path)}: {reason}"
                raise AgentUnavailable(message, hint=_START_HINT)
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)
    finally:
        os.close(errors)
    try:
        write_atomically(_pid_file(path), f"{process.pid}\n".encode())
    except BaseException:
        process.kill()
        remove_file(path)
        raise


def end_agent(path: str) -> bool:
    """End the agent on the socket `path` and remove the socket; return whether it has ended.

    Raises StateError if the socket cannot be removed.
    """
    pid = _find_pid(path)
    for number in (signal.SIGTERM, signal.SIGKILL):
        if not _is_listening(path):
            break
        if pid is None:
            return False
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass
        except PermissionError:
            return False  # root's: see Agent
        _await_end(path)
    if _is_listening(path):
        return False
    forget_agent(path)
    return True


def forget_agent(path: str) -> None:
    """Remove the files of an agent on the socket `path` that has exited.  Raises StateError."""
    remove_file(path)
    remove_file(_pid_file(path))


def _pid_file(path: str) -> str:
    return f"{path.removesuffix('.sock')}.pid"


def _find_pid(path: str) -> int | None:
    """Return the id of the process that listens on `path`, None if it is not known."""
    with contextlib.suppress(AgentUnavailable):
        if (pid := Agent(path, timeout_s=LIST_S).pid()) is not None:
            return pid
    # The file is valid as long as the process listens: it is created and removed with the socket.
    text = (read_small(_pid_file(path)) or b"").strip()
    return int(text) if text.isdigit() else None


def _is_listening(path: str) -> bool:
    try:
        Agent(path, timeout_s=LIST_S).pid()
    except AgentMissing:
        return False
    except AgentUnavailable:
        pass
    return True


def _await_end(path: str) -> None:
    deadline = time.monotonic() + _END_S
    pause_s = _FIRST_PAUSE_S
    while _is_listening(path) and time.monotonic() < deadline:
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def _answers(path: str, deadline: float) -> bool:
    try:
        held_by(path, max(deadline - time.monotonic(), _LEAST_PROBE_S))
    except AgentMissing:
        return False
    return True


def _give_up(process: subprocess.Popen[bytes], errors: int, deadline: float) -> str | None:
    """Return why waiting longer for the agent is useless; None if it may still start."""
    status = process.poll()
    if status is not None:
        return _read_error(errors) or f"exit status {status}"
    if time.monotonic() < deadline:
        return None
    process.kill()  # it does not hold a key yet
    process.wait()
    return "it did not start in time"


def _read_error(errors: int) -> str:
    """Return what the agent has written so far, quoted."""
    os.set_blocking(errors, False)  # a child of the agent may have the pipe open
    try:
        text = os.read(errors, 4096).decode(errors="replace")
    except BlockingIOError:
        return ""
    return quote_server(text) if text.strip() else ""


def _spawn(path: str, errors: int) -> subprocess.Popen[bytes]:
    """Start the agent with the descriptor `errors` as its stderr; close that here."""
    try:
        program = agent_program()
        return start(
            [program, "-D", "-a", path],
            # With our stderr, `ssh ... 2>&1 | cat` would hang for as long as the agent runs.
            stderr=errors,
            cwd="/",
            # Our environment may contain secrets, and the agent runs for a long time.
            environment={"PATH": os.defpath},
            # Ctrl-C ends every process in ssh's group.
            new_session=True,
        )
    except OSError as error:
        message = f"cannot run {clean_text(program)}: {error.strerror}"
        raise AgentUnavailable(message, hint=_START_HINT) from error
    finally:
        os.close(errors)
