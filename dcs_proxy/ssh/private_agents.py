"""The private ssh-agents: started on demand and used by every later ssh.

ssh checks the signature of every certificate that its agent lists, which takes about a millisecond
each, and accepts no list over 256 KiB (OpenSSH's authfd.c), about five hundred certificates.  So an
agent holds the keys of eight sessions, and another one is started when all are full.

No process waits for an agent to become empty: commands end the agents that hold no keys.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator

from dcs_proxy.errors import AgentRefused, AgentUnavailable, DcsError, StateError
from dcs_proxy.local.files import check_private_directory, make_private_directory
from dcs_proxy.local.lock import LockHeld, wait_for_lock
from dcs_proxy.local.log import Log
from dcs_proxy.local.trusted_file import find_distrust, real_path
from dcs_proxy.ssh.agent import LIST_S, Agent, AgentMissing, Identity
from dcs_proxy.ssh.agent_process import (
    agent_program,
    end_agent,
    forget_agent,
    held_by,
    is_socket,
    start_agent,
)
from dcs_proxy.ssh.keys import CERTIFICATE_TYPE, KeyPair
from dcs_proxy.ssh.wire import Reader, WireError

KEYS_EACH = 8
# The BSDs allow 103 bytes (sun_path), and on some systems ssh-agent binds to a longer, temporary
# name first.
_MAX_PATH = 100
# The errors of file systems that do not support sockets.
_NO_SOCKETS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)
# How long an agent may take to list its keys before it is ended; a later command ends a slow one.
_IDLE_S = 0.5
_NUMBER = re.compile(r"(\d+)\.sock\Z")
_NAME = re.compile(r"agent-\d+\.sock\Z")


class PrivateAgents:
    """The private agents of one state directory.

    The directory of their sockets, `place`, is in `state_directory` unless that cannot contain
    sockets: paths are too long, or the file system does not support them (CIFS, sshfs).  It is
    created if missing, unless `create` is False.  Raises StateError if it cannot be trusted or
    used.
    """

    def __init__(
        self, state_directory: str, log: Log | None = None, *, create: bool = True
    ) -> None:
        self.place = _find_place(state_directory)
        check = make_private_directory if create else check_private_directory
        # A user who can write to them could replace our agent by another.
        if self.is_outside(state_directory):
            _check_outside(os.path.dirname(self.place), check)
        check(self.place)
        self._log = log
        # The sockets of agents that did not answer.  They are not asked again.
        self._silent: set[str] = set()

    def is_outside(self, state_directory: str) -> bool:
        """Return whether the sockets are outside the state directory."""
        return os.path.dirname(self.place) != state_directory

    def path(self, number: int) -> str:
        """Return the socket of an agent; they are numbered from 1."""
        # Earlier versions call theirs 00.sock to 63.sock.
        return os.path.join(self.place, f"agent-{number}.sock")

    def paths(self) -> list[str]:
        """Return the existing sockets in the order of use; their agents may have exited."""
        if not os.path.isdir(self.place):
            return []
        names = [name for name in os.listdir(self.place) if name.endswith(".sock")]
        return [os.path.join(self.place, name) for name in sorted(names, key=_order)]

    def has(self, path: str) -> bool:
        """Return whether `path` leads to the socket of one of the agents, by whatever links.

        Those of another state directory are recognised by their names, unless it is a hard link.
        """
        if _is_named_like_ours(path):
            return True
        try:
            status = os.stat(path)
        except OSError:
            return False
        for each in self.paths():
            with contextlib.suppress(FileNotFoundError):  # its agent has just ended
                if os.path.samestat(status, os.stat(each)):
                    return True
        return False

    def check(self) -> None:
        """Raise AgentUnavailable if no agent can be started."""
        agent_program()

    def add_key(
        self, key: KeyPair, *, comment: str, lifetime_s: int, may_start: bool, timeout_s: float
    ) -> Agent | None:
        """Add a bare key for `lifetime_s` seconds to the first agent with room; return the agent.

        If no agent has room, start one or, unless `may_start`, return None.  Raises
        AgentUnavailable if no agent can be started within `timeout_s`, AgentRefused if it does not
        accept the key, StateError if the directory cannot be used.
        """
        deadline = time.monotonic() + timeout_s
        with self._locked(deadline):
            for path, identities in self._running():
                if len(set(map(_public_key, identities))) < KEYS_EACH:
                    agent = Agent(path, log=self._log)
                    with contextlib.suppress(AgentRefused, AgentUnavailable):
                        agent.add_key(key, comment=comment, lifetime_s=lifetime_s)
                        return agent
            if not may_start:
                return None
            agent = self._start(deadline)
            agent.add_key(key, comment=comment, lifetime_s=lifetime_s)
            return agent

    def ready(self, *, timeout_s: float) -> Agent:
        """Return an agent that answers, started if there is none; see `add_key` for errors."""
        deadline = time.monotonic() + timeout_s
        with self._locked(deadline):
            for path, _ in self._running():
                return Agent(path, log=self._log)
            return self._start(deadline)

    def end(self, *, unless_used: bool = True, timeout_s: float = 0.0) -> list[str]:
        """End the agents that hold no keys, or all; return the sockets of those that do not end.

        Raises AgentUnavailable if another process has the lock for longer than `timeout_s`.
        """
        if not self.paths():
            return []
        with self._locked(time.monotonic() + timeout_s):
            unused = {path for path, identities in self._running(_IDLE_S) if not identities}
            return [
                path for path in self.paths()
                if (path in unused or not unless_used) and not end_agent(path)
            ]  # fmt: skip

    def holders(self) -> dict[str, set[str]]:
        """Return the sockets of the agents that hold identities of each machine, by its name."""
        found: dict[str, set[str]] = {}
        for path in self.paths():
            with contextlib.suppress(AgentRefused, AgentUnavailable):
                for identity in held_by(path):
                    found.setdefault(machine_of(identity), set()).add(path)
        return found

    @contextlib.contextmanager
    def _locked(self, deadline: float) -> Iterator[None]:
        """Hold the lock under which agents are started, filled and ended."""
        path = os.path.join(self.place, "lock")
        timeout_s = max(0.0, deadline - time.monotonic())
        try:
            lock = wait_for_lock(path, timeout_s=timeout_s, what="dcs-proxy")
        except LockHeld as held:
            raise AgentUnavailable(held.message, hint=held.hint) from None
        with lock:
            yield

    def _running(self, limit_s: float = LIST_S) -> Iterator[tuple[str, list[Identity]]]:
        """Yield the sockets whose agents answer, and their identities.  The caller has the lock.

        Each agent has `limit_s` to answer.  Sockets without an agent are removed.  An agent that
        does not answer, for example because it is stopped, is skipped.
        """
        for path in self.paths():
            if path in self._silent:
                continue
            try:
                yield path, held_by(path, limit_s)
            except AgentMissing:
                if is_socket(path):
                    forget_agent(path)
            except (AgentRefused, AgentUnavailable) as error:
                self._silent.add(path)
                if self._log is not None:
                    self._log.event("agent-skipped", what=error.message)

    def _start(self, deadline: float) -> Agent:
        number = 1
        while os.path.lexists(self.path(number)):
            number += 1
        path = self.path(number)
        start_agent(path, deadline)
        if self._log is not None:
            self._log.event("agent-started", path=path)
        return Agent(path, log=self._log)


def _is_named_like_ours(path: str) -> bool:
    """Return whether `path` leads to a socket named as ours are, beside a lock."""
    place, name = os.path.split(real_path(path))
    return bool(_NAME.match(name)) and os.path.isfile(os.path.join(place, "lock"))


def _order(name: str) -> tuple[bool, int, str]:
    number = _NUMBER.search(name)
    return number is None, int(number[1]) if number else 0, name


def end_idle_agents(state_directory: str, log: Log) -> None:
    """End the private agents that hold no keys, unless another process has the lock."""
    if not os.path.isdir(_find_place(state_directory)):
        return
    with contextlib.suppress(DcsError):
        PrivateAgents(state_directory, log).end()


def machine_of(identity: Identity) -> str:
    """Return the machine in the comment that session/identity.py gives an identity."""
    return identity.comment.partition(" via ")[0]


def _public_key(identity: Identity) -> bytes:
    """Return an id of the identity's key that is the same for the bare key and its certificate."""
    try:
        reader = Reader(identity.blob)
        if reader.string() == CERTIFICATE_TYPE:
            reader.string()  # the nonce (PROTOCOL.certkeys)
        return reader.string()
    except WireError:
        return identity.blob


def _check_outside(base: str, check: Callable[[str], object]) -> None:
    """Check a directory that another user may have created first.  Raises StateError."""
    try:
        check(base)
    except StateError as error:
        remedy = f"have it removed (sudo rm -r {shlex.quote(base)})"
        distrust = find_distrust(base)
        if distrust and distrust.place != base and not base.startswith("/tmp/dcs-proxy-"):
            remedy = "unset XDG_RUNTIME_DIR"  # the problem is that directory, not ours
        raise StateError(
            error.message,
            hint=f"{remedy}, or set DCS_PROXY_HOME to a shorter path, which has room for the"
            " agents' sockets",
        ) from None


def _find_place(state_directory: str) -> str:
    """Return the directory for the sockets of a state directory."""
    place = os.path.join(state_directory, "sockets")
    is_short = len(os.fsencode(place)) + len("/agent-999.sock") <= _MAX_PATH
    if is_short and _has_sockets(state_directory):
        return place
    import hashlib

    runtime = os.environ.get("XDG_RUNTIME_DIR", "")
    # Not TMPDIR, which may differ in programs started by a desktop: the path must be the same.
    base = os.path.join("/tmp", f"dcs-proxy-{os.geteuid()}")
    if runtime.startswith("/") and len(os.fsencode(runtime)) < 50 and os.path.isdir(runtime):
        base = os.path.join(runtime, "dcs-proxy")
    return os.path.join(base, hashlib.sha256(os.fsencode(state_directory)).hexdigest()[:16])


def _has_sockets(directory: str) -> bool:
    """Return whether a socket can be made in a directory; True if it does not exist yet."""
    path = os.path.join(directory, f".{os.getpid():x}-{threading.get_native_id():x}.tmp")
    try:
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
            os.unlink(path)
    except OSError as error:
        return error.errno not in _NO_SOCKETS
    return True
