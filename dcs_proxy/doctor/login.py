"""Checks of each step of a login to one machine."""

from __future__ import annotations

import socket
import time

from dcs_proxy.app import open_lookup
from dcs_proxy.doctor.context import Context, required
from dcs_proxy.doctor.runner import Check, failed, passed, skipped
from dcs_proxy.errors import CredentialsError, DcsError
from dcs_proxy.local.programs import SECRET_VARIABLES, run
from dcs_proxy.names import MachineName, parse_machine_name
from dcs_proxy.publish.includes import publish
from dcs_proxy.session.resolve import resolve
from dcs_proxy.ssh.dial import address_of
from dcs_proxy.ssh.tunnel import reach
from dcs_proxy.text import clean_text, quote_server

_LOGIN_S = 60.0
# RFC 4253 §4.2: lines may come before the version, which is at most 255 characters.
_MAX_BANNER = 8192
# A login of its own: no master connection, no forwarding, no prompts.
_PLAIN = (
    "-T", "-n", "-o", "BatchMode=yes", "-o", "ControlPath=none", "-o", "ClearAllForwardings=yes",
    "-o", "RemoteCommand=none",
)  # fmt: skip


def check_machine(context: Context) -> Check:
    """Check that the host names a machine, by its name, a short name or an alias."""
    host = context.host = parse_machine_name(required(context.host))
    context.machine = open_lookup(context.open_session_context()).find(host)
    return passed(host if host == context.machine else f"{host} is {context.machine}")


def check_session(context: Context) -> Check:
    """Check that a session becomes ready.  Wakes the machine."""
    session_context = context.open_session_context()
    machine = required(context.machine)
    record = resolve(machine, session_context)
    context.session = required(record.ready)
    publish(session_context.state, MachineName(required(context.host)), machine, record)
    minutes = max(0, int(context.session.ends_at - session_context.now())) // 60
    login = context.session.ssh_username
    return passed(f"{record.attempt.session_id} for the login {login}, {minutes} min left")


def check_gateway(context: Context) -> Check:
    """Check that the gateway accepts a connection and speaks SSH."""
    session, settings = required(context.session), required(context.settings)
    proxy, limit = settings.proxy_to(session.endpoint), float(settings.connect_seconds)
    sock = reach(
        proxy, session.endpoint, session.port,
        timeout_s=limit, deadline=time.monotonic() + 3 * limit, client_gone=lambda: False,
    )  # fmt: skip
    where = f"{session.endpoint} port {session.port}"
    with sock:
        way = f"through {proxy}" if proxy else f"at {address_of(sock)}"
        banner = _read_banner(sock, limit)
    if not banner.startswith("SSH-"):
        said = f"sends {quote_server(banner)}, which is not SSH" if banner else "sends nothing"
        return failed(
            f"{where} accepts a connection but {said}",
            "a firewall or the login page of a network may be intercepting the connection",
        )
    return passed(f"{where} {way}: {quote_server(banner)}")


def check_login(context: Context) -> Check:
    """Check that the real ssh can run ``true`` on the machine.

    What ssh prints may come from the gateway or the machine, so it decides nothing, and is quoted.
    """
    host = required(context.host)
    if (variable := _key_variable(context)) and _lacks_key(context):
        # If reuse_seconds is 0, or the checks took longer than that, the API has to be asked again.
        return skipped(
            f"not tried: ssh has to ask the API, and doctor gives the key in {variable} to no other"
            " program",
            f"try it yourself: ssh {host} true",
        )
    command = context.ssh_command(*_PLAIN, host, "true")
    hint = f"see where it stops: ssh -v {host}; and what dcs-proxy did: dcs-proxy log {host}"
    try:
        done = run(command, environment=context.environment, limit_s=_LOGIN_S)
    except TimeoutError:
        return failed(f"ssh {host} true timed out after {_LOGIN_S:g} s", hint)
    if done.status == 0:
        return passed(f"ssh {host} true")
    if done.is_cut:
        return failed(
            f"ssh {host} true was stopped because it prints without end",
            f"look at the start files of the shell on the machine: ssh {host}",
        )
    line = _telling_line(done.stderr)
    said = f"printed {quote_server(line)}" if line else "printed no error"
    return failed(f"ssh {host} true failed with exit status {done.status} and {said}", hint)


def _lacks_key(context: Context) -> bool:
    """Return whether ssh must ask the API for the session, but finds no key to do so.

    It does not get a key that is in doctor's environment.
    """
    session_context = context.open_session_context_of_ssh()
    try:
        session_context.open_api()
    except CredentialsError:
        pass
    else:
        return False
    try:
        resolve(required(context.machine), session_context)
    except CredentialsError:
        return True
    except DcsError:
        pass  # ssh will fail in the same way, and doctor show what it prints
    return False


def _key_variable(context: Context) -> str:
    """Return the variable that has the API key; "" if neither has it."""
    return next((name for name in SECRET_VARIABLES if context.environment.get(name)), "")


def _read_banner(sock: socket.socket, limit_s: float) -> str:
    """Return the server's version line, else its last line, or "" if it sends nothing in time."""
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


def _telling_line(errors: bytes) -> str:
    """Return the most informative line of ssh's errors, "" if there is none.

    Prefer a line that looks like ours, else take the last.
    """
    lines = [line for line in errors.decode("utf-8", "replace").splitlines() if line.strip()]
    ours = [ln for ln in lines if ln.startswith("dcs-proxy: ") and "waking up" not in ln]
    return (ours[:1] or lines[-1:] or [""])[0]
