"""The limit of open files of this process (ulimit -n)."""

from __future__ import annotations

import resource

from dcs_proxy.errors import ConfigError

# Waking several machines at once needs connections, agents and an ssh for each.
NEEDED = 64


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
