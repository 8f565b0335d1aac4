"""The limits of this process: open files, memory, and the number of threads and processes."""

from __future__ import annotations

import errno
import resource
from collections.abc import Iterable

from dcs_proxy.errors import ConfigError, DcsError

# Waking several machines at once needs connections, agents and an ssh for each.
NEEDED = 64
# The resource, the command that shows its limit, and the unit of that command (in bytes, or 1).
_DATA = (resource.RLIMIT_DATA, "ulimit -d", 1024)
_MEMORY = (resource.RLIMIT_AS, "ulimit -v", 1024)
_PROCESSES = (resource.RLIMIT_NPROC, "ulimit -u", 1)


def require_open_files() -> None:
    """Raise the limit to `NEEDED` if it is lower.  Raises ConfigError if that is not permitted."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= NEEDED:
        return
    if hard == resource.RLIM_INFINITY or hard >= NEEDED:
        resource.setrlimit(resource.RLIMIT_NOFILE, (NEEDED, hard))
        return
    raise ConfigError(
        f"this process may open only {hard} files (ulimit -n), and dcs-proxy needs {NEEDED}",
        hint="raise the limit where it is set: ulimit -n, limits.conf, LimitNOFILE of systemd",
    )


def explain_shortage(error: Exception) -> DcsError | None:
    """Return the error for an exception that a lack of memory, threads or processes has caused.

    Return None for any other exception.
    """
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return _shortage("there is not enough memory", (_DATA, _MEMORY))
    # Part of the dynamic linker's message (dlopen(3)).
    if isinstance(error, ImportError) and "Cannot allocate memory" in str(error):
        return _shortage("there is not enough memory", (_DATA, _MEMORY))
    is_thread = isinstance(error, RuntimeError) and "start new thread" in str(error)
    if is_thread or (isinstance(error, BlockingIOError) and error.errno == errno.EAGAIN):
        what = "the system starts no more threads or processes"
        return _shortage(what, (_PROCESSES, _DATA, _MEMORY))
    return None


def _shortage(what: str, limits: Iterable[tuple[int, str, int]]) -> DcsError:
    """Return an error that names those of `limits` that are set."""
    found = [(resource.getrlimit(kind)[0], command, unit) for kind, command, unit in limits]
    said = [f"{command} is {soft // unit}" for soft, command, unit in found if soft >= 0]
    return ConfigError(
        f"{what} ({', '.join(said)})" if said else what,
        hint="end other programs, or raise the limit where it is set: ulimit, limits.conf, the "
        "systemd unit, the container's",
    )
