"""Checks of the whole way to one machine's shell, each step as ssh itself goes it."""

from __future__ import annotations

import socket
import subprocess
import time

from dcs_proxy.doctor.context import Context, required
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.errors import clean_text
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.names import MachineName
from dcs_proxy.publish.includes import publish
from dcs_proxy.session.resolve import resolve
from dcs_proxy.ssh.tunnel import reach

_LOGIN_S = 60.0
# RFC 4253 §4.2: lines may come before the version, which is at most 255 characters.
_MAX_BANNER = 8192
# A login of its own: no master connection, no forwarding, nobody asked.
_PLAIN = (
    "-T", "-n", "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "ClearAllForwardings=yes",
    "-o", "RemoteCommand=none",
)  # fmt: skip


def check_machine(exam: Context) -> Check:
    """The machine's name."""
    host = required(exam.host)
    exam.machine = required(exam.settings).machine(host)
    return passed(host if host == exam.machine else f"{host} is {exam.machine}")


def check_session(exam: Context) -> Check:
    """A session that is ready; the machine is woken for it."""
    session_context = exam.open_context()
    machine = required(exam.machine)
    record = resolve(machine, session_context)
    exam.session = required(record.ready)
    publish(session_context.state, MachineName(required(exam.host)), machine, record)
    minutes = max(0, int(exam.session.ends_at - session_context.now())) // 60
    login = exam.session.ssh_username
    return passed(f"{record.attempt.session_id} for the login {login}, {minutes} min left")


def check_gateway(exam: Context) -> Check:
    """The gateway: it accepts a connection, and speaks SSH."""
    session, settings = required(exam.session), required(exam.settings)
    proxy, limit = settings.proxy_to(session.endpoint), float(settings.connect_seconds)
    sock = reach(
        proxy, session.endpoint, session.port,
        timeout_s=limit, deadline=time.monotonic() + 3 * limit, client_gone=lambda: False,
    )  # fmt: skip
    where = f"{session.endpoint} port {session.port}"
    with sock:
        way = f"through {proxy}" if proxy else f"at {sock.getpeername()[0]}"
        banner = _read_banner(sock, limit)
    if not banner.startswith("SSH-"):
        said = f"says {banner!r}, which is not SSH" if banner else "says nothing"
        return failed(
            f"{where} accepts a connection and {said}",
            "does a firewall or a network's login page stand in between?",
        )
    return passed(f"{where} {way}: {banner}")


def check_login(exam: Context) -> Check:
    """A real ssh that runs ``true`` on the machine."""
    host = required(exam.host)
    process = subprocess.Popen(
        exam.ssh_command(*_PLAIN, host, "true"), stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=dict(exam.environment),
    )  # fmt: skip
    try:
        _, errors = Deadline(2 * _LOGIN_S).call(process.communicate, within_s=_LOGIN_S)
    except TimeoutError:
        errors = f"no end after {_LOGIN_S:g} s".encode()
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    if process.returncode == 0:
        return passed(f"ssh {host} true")
    hint = f"see where it stops: ssh -v {host}; and what was done for it: dcs-proxy log {host}"
    return failed(f"ssh {host} true fails: {_reason(errors, process.returncode)}", hint)


def _read_banner(sock: socket.socket, limit_s: float) -> str:
    """Return the server's version line, else its last words, "" if it says nothing in time."""
    end = time.monotonic() + limit_s
    data = b""
    while len(data) < _MAX_BANNER and (left := end - time.monotonic()) > 0:
        sock.settimeout(left)
        try:
            part = sock.recv(1024)
        except OSError:
            break
        data += part
        if not part or any(line.startswith(b"SSH-") for line in data.split(b"\n")[:-1]):
            break
    lines = [clean_text(line.decode("utf-8", "replace"), 80) for line in data.split(b"\n")]
    versions = [line for line in lines if line.startswith("SSH-")]
    return (versions or [line for line in lines if line] or [""])[-1]


def _reason(errors: bytes, status: int) -> str:
    """Return the line of ssh's errors that tells most: ours, else the last."""
    lines = errors.decode("utf-8", "replace").splitlines()
    ours = [line.removeprefix("dcs-proxy: ") for line in lines if line.startswith("dcs-proxy: ")]
    said = [line for line in ours if "waking up" not in line] or [ln for ln in lines if ln.strip()]
    line = said[0] if ours and said else (said or [f"exit status {status}"])[-1]
    return clean_text(line)
