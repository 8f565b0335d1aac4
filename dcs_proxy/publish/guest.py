"""After a wake, wait until the machine itself accepts a login: try it with a short ssh of our own.

The control plane reports a session as ready a little before the gateway can reach the guest.  Until
then the gateway ends every login with one of a few codes on stderr.
"""

from __future__ import annotations

import os
import re
import time

from dcs_proxy.errors import DeadlineExceeded
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log, milliseconds_since
from dcs_proxy.local.programs import find_program, run
from dcs_proxy.names import MachineName
from dcs_proxy.openssh.config_text import session_options
from dcs_proxy.publish.includes import write_identity
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Record

_NOT_READY = re.compile(
    r"SSH_(TUNNEL_NOT_READY|GUEST_CONNECT_FAILED|GUEST_AUTH_FAILED|GUEST_SESSION_TERMINATED)"
)
_PAUSE_S = 0.5
_CONNECT_S = 10
# For one login, from the first packet to the last.
_TRY_S = 20.0


def await_guest(
    state: StateDirectory,
    name: MachineName,
    record: Record,
    deadline: Deadline,
    log: Log,
    proxy_command: str | None,
) -> None:
    """Return once the machine accepts the session's login, or the login fails for another reason.

    The user's own ssh will show that reason.  `proxy_command` is the ProxyCommand to the endpoint,
    None if ssh can connect directly.  Raises DeadlineExceeded, with the gateway's last code, or
    ClientGone.
    """
    program = find_program("ssh", os.environ)
    if program is None:
        return
    command = [program, *_arguments(state, name, record, proxy_command)]
    code, start = "", time.monotonic()
    try:
        while code := _log_in(command, deadline):
            log.event("guest-not-ready", machine=name, code=code)
            deadline.sleep(_PAUSE_S)
        log.event("guest-ready", machine=name, ms=milliseconds_since(start))
    except DeadlineExceeded:
        because = f" ({code})" if code else ""
        raise DeadlineExceeded(
            f"the machine woke, but no login succeeded within {deadline.seconds:g} s{because}",
            hint="try again; if this persists, look at the machine in the console",
        ) from None


def _arguments(
    state: StateDirectory,
    name: MachineName,
    record: Record,
    proxy_command: str | None,
) -> list[str]:
    ready = record.ready
    if ready is None:
        raise ValueError("only a ready session can be logged in to")
    options = [
        *session_options(write_identity(state, name, name, record)),
        "BatchMode yes",
        "StrictHostKeyChecking yes",
        f"ConnectTimeout {_CONNECT_S}",
    ]
    if proxy_command is not None:
        options += [f"ProxyCommand {proxy_command}", "ProxyUseFdpass yes"]
    words = [word for option in options for word in ("-o", option)]
    return ["-F", "none", "-T", *words, "-p", str(ready.port), "--", ready.endpoint, "true"]


def _log_in(command: list[str], deadline: Deadline) -> str:
    """Log in once; return the gateway's code for "not yet", or "" for any other result."""
    environment = {"PATH": os.defpath, "HOME": os.path.expanduser("~")}
    try:
        done = run(command, environment=environment, limit_s=_TRY_S, turn=deadline.check)
    except TimeoutError:
        return "no answer"
    if done.is_cut:  # a guest that prints endlessly has accepted the login
        return ""
    found = _NOT_READY.search(done.stderr.decode(errors="replace"))
    return found[0] if found and done.status else ""
