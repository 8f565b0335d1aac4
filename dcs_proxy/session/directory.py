"""The state directory: one record, one lock and a few files for each machine.

    sockets/agent-N.sock .pid       the private agents; each holds the keys of eight sessions
    sockets/lock                    held by the process that starts, fills or ends them
    launcher                        the script that the ssh config runs (publish/launcher.py)
    machines                        the names of the account's machines when last listed
    ssh-configs                     the files in which config-ssh has written our block
    account-DIGEST.json             the ids of an account's machines (api/known_machines.py)
    bridge_KIND_key known_hosts     the bridge's host keys, and the known_hosts file for its clients
    checked                         when the included files were last checked
    hosts/NAME.conf                 what ssh includes for the machine
    agents/only.conf, HEX.conf      which agent ``ssh -A`` forwards: the only one, or one of several
    sessions/NAME.json              the record: the attempt in progress or the session in use
    sessions/NAME.TOKEN.*           the certificate, key and known_hosts that ssh reads
    sessions/NAME.warm              the fast entry for the next ssh (publish/fast_entry.py)
    sessions/NAME.used              which ssh used the session last (fastpath/helper.py)
    sessions/NAME.failure           why the last attempt failed, for processes that waited for it
    sessions/PID-START.failed       why `prepare` failed, for the ProxyCommand of the same ssh
    sessions/NAME.lock              held by the process that creates a session or waits for it

Each attempt has its own TOKEN, so that an ssh that has read the old snippet still finds the old
files.  Private keys that open machines are never written here.  Files have mode 0600 and are
replaced atomically; directories have mode 0700.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from dcs_proxy.errors import DeadlineExceeded
from dcs_proxy.fastpath import helper
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.environment import full_path
from dcs_proxy.local.files import (
    check_private_directory,
    make_private_directory,
    read_small,
    remove_file,
    write_atomically,
)
from dcs_proxy.local.lock import describe_holder, lock_holder, try_lock
from dcs_proxy.names import MachineName, file_stem, is_machine_name, natural_order
from dcs_proxy.session.records import Failure, Record, parse_failure, parse_record, render

# In bytes; enough for more than a hundred thousand names.
_MAX_NAMES = 8 * 1024 * 1024

_PARTS = ("", "hosts", "sessions", "agents")
LOCK_TURN_S = 0.05
# The suffix of what session/first_half.py writes.
FAILED = ".failed"
# How long the files of an ended session stay, in case an ssh has just read the snippet.
_GRACE_S = 300


def default_state_directory(environment: Mapping[str, str]) -> str:
    """Return the state directory that DCS_PROXY_HOME names, or the default one."""
    chosen = environment.get("DCS_PROXY_HOME") or "~/.ssh/dcs-proxy"
    return full_path(chosen)


def read_ssh_configs(state_directory: str) -> list[str]:
    """Return the files in which config-ssh has written our block; they may be gone."""
    data = read_small(os.path.join(state_directory, "ssh-configs")) or b""
    return [path for path in os.fsdecode(data).splitlines() if os.path.isabs(path)]


class StateDirectory:
    """The state directory at `path`.

    It is created if it is missing; with `create` False, a missing one counts as empty.  Raises
    StateError if the directory cannot be trusted or used.
    """

    def __init__(self, path: str, *, create: bool = True) -> None:
        self.path = path
        for part in _PARTS:
            check = make_private_directory if create else check_private_directory
            check(os.path.join(path, part).rstrip("/"))

    def file(self, *parts: str) -> str:
        """Return the path of a file under the state directory."""
        return os.path.join(self.path, *parts)

    def snippet_path(self, name: MachineName) -> str:
        """Return the path of the file that ssh includes for the machine."""
        return self.file("hosts", f"{file_stem(name)}.conf")

    def session_path(self, name: MachineName, suffix: str) -> str:
        """Return the path of one of the machine's other files."""
        return self.file("sessions", file_stem(name) + suffix)

    def use_path(self, name: MachineName) -> str:
        """Return the path of the file that says which ssh used the machine's session last."""
        return self.session_path(name, ".used")

    def load(self, name: MachineName) -> Record | None:
        """Return the machine's record; None if it is missing or damaged."""
        data = read_small(self.session_path(name, ".json"))
        return None if data is None else parse_record(data)

    def save(self, name: MachineName, record: Record) -> None:
        """Write the machine's record.  Raises StateError."""
        write_atomically(self.session_path(name, ".json"), render(record))

    def forget(self, name: MachineName) -> None:
        """Remove the machine's record and snippet.  Raises StateError."""
        remove_file(self.snippet_path(name))
        remove_file(self.session_path(name, ".json"))

    def expire(self, name: MachineName, record: Record, proved_at: float) -> None:
        """Require the API to confirm the ready session in `record` before it is used again.

        `proved_at` is written as the time of the last confirmation.  Does nothing if another
        process has replaced the record.  Raises StateError.
        """
        if record.ready is not None and self.load(name) == record:
            self.save(name, replace(record, ready=replace(record.ready, proved_at=proved_at)))

    def save_use(self, name: MachineName, pid: int, until: float) -> None:
        """Record that the API was asked about the session for the ssh `pid`.

        No further confirmation is needed before the unix time `until`.  Raises StateError.
        """
        write_atomically(self.use_path(name), helper.render_use(pid, until))

    def is_doubtful(self, name: MachineName, now: float) -> bool:
        """Return whether the last ssh got the session without asking the API, and has ended."""
        try:
            return helper.is_doubtful(self.use_path(name), now)
        except OSError:
            return True

    def load_failure(self, name: MachineName) -> Failure | None:
        """Return why the last attempt failed; None if that is not known."""
        data = read_small(self.session_path(name, ".failure"))
        return None if data is None else parse_failure(data)

    def save_failure(self, name: MachineName, failure: Failure) -> None:
        """Write why the attempt failed.  Raises StateError."""
        write_atomically(self.session_path(name, ".failure"), render(failure))

    def machines(self) -> list[MachineName]:
        """Return the machines that have a record, in natural order."""
        found = []
        if not os.path.isdir(self.file("sessions")):
            return []
        for entry in os.scandir(self.file("sessions")):
            stem, suffix = os.path.splitext(entry.name)
            data = read_small(entry.path) if suffix == ".json" else None
            record = None if data is None else parse_record(data)
            if record is not None:
                name = record.attempt.machine or stem
                if is_machine_name(name) and file_stem(MachineName(name)) == stem:
                    found.append(MachineName(name))
        return natural_order(found)

    def save_machines(self, names: Sequence[MachineName]) -> None:
        """Write the names of the account's machines, one a line.  Raises StateError."""
        write_atomically(self.file("machines"), "".join(f"{name}\n" for name in names).encode())

    def saved_machines(self) -> list[MachineName]:
        """Return the names that `save_machines` wrote; none if they cannot be read."""
        text = (read_small(self.file("machines"), _MAX_NAMES) or b"").decode("utf-8", "replace")
        return [MachineName(name) for name in text.splitlines() if is_machine_name(name)]

    def add_ssh_config(self, path: str) -> None:
        """Record for uninstall that a file has our block.  Raises StateError."""
        known = read_ssh_configs(self.path)
        if path not in known:
            text = "".join(f"{each}\n" for each in [*known, path])
            write_atomically(self.file("ssh-configs"), os.fsencode(text))

    @contextlib.contextmanager
    def lock(
        self, name: MachineName, deadline: Deadline, stop: Callable[[], bool] = lambda: False
    ) -> Iterator[bool]:
        """Hold the machine's lock and yield True; yield False as soon as `stop` returns True.

        `stop` is called whenever another process holds the lock.  Raises DeadlineExceeded, which
        names that process, ClientGone or StateError.
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
        """Remove the files of ended sessions and the leftovers of killed processes."""
        for entry in os.scandir(self.file("sessions")):
            if entry.name.endswith(".lock"):
                self._collect_machine(entry.name.removesuffix(".lock"), now)
        for part in ("hosts", "sessions", "agents", ""):
            for entry in os.scandir(self.file(part)):
                is_short_lived = entry.name.endswith((".tmp", FAILED))
                if is_short_lived and _is_older(entry, now - _GRACE_S):
                    remove_file(entry.path)

    def _collect_machine(self, stem: str, now: float) -> None:
        sessions = self.file("sessions")
        lock_path = os.path.join(sessions, f"{stem}.lock")
        if self._is_in_use(stem, now):
            return
        try:
            if os.stat(lock_path).st_mtime > now - _GRACE_S:
                return
        except FileNotFoundError:
            return
        if (lock := try_lock(lock_path)) is None:
            return
        with lock:
            if self._is_in_use(stem, now):
                return  # another process has just started to use it
            remove_file(self.file("hosts", f"{stem}.conf"))
            # A long name's stem is the beginning of the name, a dot and a digest.
            own = re.compile(re.escape(stem) + r"\.(?![0-9a-f]{32}\.)")
            for entry in os.scandir(sessions):
                if own.match(entry.name) and entry.path != lock_path:
                    remove_file(entry.path)
            remove_file(lock_path)

    def _is_in_use(self, stem: str, now: float) -> bool:
        """Return whether a machine's record is still valid, or ended less than _GRACE_S ago."""
        data = read_small(self.file("sessions", f"{stem}.json"))
        record = None if data is None else parse_record(data)
        return record is not None and record.ends_at() > now - _GRACE_S


def _is_older(entry: os.DirEntry[str], than: float) -> bool:
    try:
        return entry.stat().st_mtime < than
    except FileNotFoundError:
        return False  # its writer has renamed it since


def _lock_held(path: str, seconds: float) -> DeadlineExceeded:
    holder = lock_holder(path)
    return DeadlineExceeded(
        f"another dcs-proxy{describe_holder(path)} has been working on this "
        f"machine for {seconds:g} s",
        hint=f"to see what it is doing: ps -o stat,lstart,args {holder}" if holder else "",
    )
