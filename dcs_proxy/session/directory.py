"""The state directory: one record, one lock and a few files for each machine.

    sockets/NN.sock NN.lock         the private agents, each of some of the machines
    machines                        the names of the account's machines when last listed
    healed                          when the included files were last looked at
    hosts/NAME.conf                 what ssh includes for the machine
    agents/only.conf, HEX.conf      which agent ``ssh -A`` forwards: the one, or one of several
    sessions/NAME.json              the record: the attempt under way or the session in use
    sessions/NAME.TOKEN.*           the certificate, key and known_hosts that ssh reads
    sessions/NAME.warm              what the next ssh may rely on without asking (warm.py)
    sessions/NAME.failure           why the last attempt failed, for those who waited for it
    sessions/NAME.lock              held by the one process that creates or waits

TOKEN belongs to one attempt, so that an ssh which has read the old snippet still finds the old
files.  No private key is ever here.  Files are 0600 and written whole, directories 0700.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, TypeVar

from dcs_proxy.errors import DeadlineExceeded
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.files import (
    make_private_directory,
    read_small,
    remove_file,
    write_atomically,
)
from dcs_proxy.local.lock import lock_holder, try_lock
from dcs_proxy.names import MachineName, file_stem, is_machine_name
from dcs_proxy.ssh.keys import public_blob

T = TypeVar("T")

LOCK_TURN_S = 0.05
NEVER = 0.0
# How long the files of a session that has ended stay: an ssh may have just read the snippet.
_GRACE_S = 300


@dataclass(frozen=True)
class Attempt:
    """One logical create, written down before it is sent, so that any process can take it up.

    `public_key` is the raw Ed25519 key in hex; its private half waits in the agent at
    `agent_path` until `key_ends_at` (unix time).  `account` tells one API and organisation from
    another.  `polled` says that GET on the session has worked.  `machine` is the machine's name,
    which file names may not hold whole; "" in a record of an earlier version.
    """

    idempotency_key: str
    public_key: str
    agent_path: str
    key_ends_at: float
    account: str
    session_id: str = ""
    polled: bool = False
    machine: str = ""

    @property
    def public(self) -> bytes:
        return bytes.fromhex(self.public_key)

    @property
    def token(self) -> str:
        """The part of file names that belongs to this attempt."""
        return self.public_key[:12]


@dataclass(frozen=True)
class ReadySession:
    """What ssh needs to log in.

    `authority` and `certificate` are public key lines, `certificate` empty where the API gave
    none.  `bare_key` says that the agent holds the plain key rather than the certificate.
    `began_at` (it was ready, or made), `ends_at` and `proved_at` (the API last said "ready", and
    the machine let somebody in or had been running; NEVER where it has yet to) are unix times.
    """

    endpoint: str
    port: int
    ssh_username: str
    authority: str
    certificate: str
    bare_key: bool
    ends_at: float
    began_at: float
    proved_at: float


@dataclass(frozen=True)
class Record:
    """What is known of a machine: the attempt, the session once ready, and the one before."""

    attempt: Attempt
    ready: ReadySession | None = None
    previous_token: str = ""
    previous_username: str = ""

    @property
    def identity(self) -> bytes:
        """The public blob by which the agent knows the identity that ssh will ask for."""
        import binascii

        if self.ready is None or self.ready.bare_key or not self.ready.certificate:
            return public_blob(self.attempt.public)
        return binascii.a2b_base64(self.ready.certificate.split()[1])

    def ends_at(self) -> float:
        """When nothing of it is of use any more (unix time)."""
        return self.ready.ends_at if self.ready else self.attempt.key_ends_at


@dataclass(frozen=True)
class Failure:
    """Why an attempt failed, for others who waited for it.

    `client` identifies the ssh that asked, `failed_at` is unix time.
    """

    exit_code: int
    message: str
    hint: str
    failed_at: float
    client: str


def default_state_directory(environment: Mapping[str, str]) -> str:
    """Return where the state directory is, or would be."""
    chosen = environment.get("DCS_PROXY_HOME") or "~/.ssh/dcs-proxy"
    return os.path.abspath(os.path.expanduser(chosen))


class StateDirectory:
    """The files of one user's sessions under `path`, which is made when missing.

    Raises StateError if the directory cannot be trusted or used.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        for part in ("", "hosts", "sessions", "agents"):
            make_private_directory(os.path.join(path, part).rstrip("/"))

    def file(self, *parts: str) -> str:
        """Return the path of a file under the state directory."""
        return os.path.join(self.path, *parts)

    def snippet_path(self, name: MachineName) -> str:
        """Return the path of the file that ssh includes for the machine."""
        return self.file("hosts", f"{file_stem(name)}.conf")

    def session_path(self, name: MachineName, suffix: str) -> str:
        """Return the path of one of the machine's other files."""
        return self.file("sessions", file_stem(name) + suffix)

    def load(self, name: MachineName) -> Record | None:
        """Return the machine's record; None if there is none, or it is damaged."""
        data = read_small(self.session_path(name, ".json"))
        return None if data is None else parse_record(data)

    def save(self, name: MachineName, record: Record) -> None:
        """Write the machine's record.  Raises StateError."""
        write_atomically(self.session_path(name, ".json"), json.dumps(asdict(record)).encode())

    def forget(self, name: MachineName) -> None:
        """Remove the machine's record and snippet.  Raises StateError."""
        remove_file(self.snippet_path(name))
        remove_file(self.session_path(name, ".json"))

    def load_failure(self, name: MachineName) -> Failure | None:
        """Return why the last attempt failed; None if it did not, or nobody knows."""
        data = read_small(self.session_path(name, ".failure"))
        return None if data is None else _parse(Failure, _load_object(data))

    def save_failure(self, name: MachineName, failure: Failure) -> None:
        """Write down why the attempt failed.  Raises StateError."""
        data = json.dumps(asdict(failure)).encode()
        write_atomically(self.session_path(name, ".failure"), data)

    def machines(self) -> list[MachineName]:
        """Return the machines of which there is a record, by name."""
        found = []
        for entry in os.scandir(self.file("sessions")):
            stem, suffix = os.path.splitext(entry.name)
            data = read_small(entry.path) if suffix == ".json" else None
            record = None if data is None else parse_record(data)
            if record is not None:
                name = record.attempt.machine or stem
                if is_machine_name(name) and file_stem(MachineName(name)) == stem:
                    found.append(MachineName(name))
        return sorted(found)

    def save_machines(self, names: Sequence[MachineName]) -> None:
        """Write the names of the account's machines down, one a line.  Raises StateError."""
        write_atomically(self.file("machines"), "".join(f"{name}\n" for name in names).encode())

    @contextlib.contextmanager
    def lock(
        self, name: MachineName, deadline: Deadline, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[bool]:
        """Hold the machine's lock; yields False, without it, as soon as `stop` says so.

        Raises DeadlineExceeded naming the process that holds it, ClientGone or StateError.
        """
        path = self.session_path(name, ".lock")
        while True:
            lock = try_lock(path)
            if lock is not None or stop():
                break
            try:
                deadline.sleep(LOCK_TURN_S)
            except DeadlineExceeded:
                raise _lock_held(path, deadline.seconds) from None
        with lock or contextlib.nullcontext():
            yield lock is not None

    def collect_garbage(self, now: float) -> None:
        """Remove what ended sessions and killed processes left behind."""
        for entry in os.scandir(self.file("sessions")):
            if entry.name.endswith(".lock"):
                self._collect_machine(entry.name.removesuffix(".lock"), now)
        for part in ("hosts", "sessions", "agents", ""):
            for entry in os.scandir(self.file(part)):
                if entry.name.endswith(".tmp") and _is_older(entry, now - _GRACE_S):
                    remove_file(entry.path)

    def _collect_machine(self, stem: str, now: float) -> None:
        sessions = self.file("sessions")
        data = read_small(os.path.join(sessions, f"{stem}.json"))
        record = None if data is None else parse_record(data)
        lock_path = os.path.join(sessions, f"{stem}.lock")
        if record is not None and record.ends_at() > now - _GRACE_S:
            return
        try:
            if os.stat(lock_path).st_mtime > now - _GRACE_S:
                return
        except FileNotFoundError:
            return
        if (lock := try_lock(lock_path)) is None:
            return
        with lock:
            remove_file(self.file("hosts", f"{stem}.conf"))
            for entry in os.scandir(sessions):
                if entry.name.startswith(f"{stem}.") and entry.path != lock_path:
                    remove_file(entry.path)
            remove_file(lock_path)


def parse_record(data: bytes) -> Record | None:
    """Return the record in `data`; None if it is damaged, or of another version's shape."""
    value = _load_object(data)
    attempt = _parse(Attempt, value.pop("attempt", None))
    ready = value.pop("ready", None)
    session = None if ready is None else _parse(ReadySession, ready)
    if attempt is None or (ready is not None and session is None):
        return None
    record = _parse(Record, {**value, "attempt": attempt, "ready": session})
    try:
        if record is None or len(attempt.public) != 32 or not record.identity:
            return None
    except (ValueError, IndexError):
        return None
    return record


def _load_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


_TYPES: dict[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "bool": (bool,),
    "float": (int, float),
    "Attempt": (Attempt,),
    "ReadySession | None": (ReadySession, type(None)),
}


def _parse(kind: type[T], value: Any) -> T | None:
    """Build a dataclass from a JSON object of exactly its fields and types, or return None."""
    if not isinstance(value, dict):
        return None
    # Every kind is a dataclass; Python 3.10 has no public type for that.
    for field in fields(kind):  # type: ignore[arg-type]
        # The exact type: a bool is an int to isinstance.
        if field.name in value and type(value[field.name]) not in _TYPES[str(field.type)]:
            return None
    try:
        return kind(**value)
    except TypeError:
        return None


def _is_older(entry: os.DirEntry[str], than: float) -> bool:
    try:
        return entry.stat().st_mtime < than
    except FileNotFoundError:
        return False  # renamed by whoever wrote it


def _lock_held(path: str, seconds: float) -> DeadlineExceeded:
    holder = lock_holder(path)
    return DeadlineExceeded(
        f"another dcs-proxy{f' (process {holder})' if holder else ''} has been working on this "
        f"machine for {seconds:g} s",
        hint=f"see what it does: ps -o stat,lstart,args {holder}" if holder else "",
    )
