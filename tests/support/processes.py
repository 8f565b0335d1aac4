"""The environment that tests give to programs, and the processes that run on this computer."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

# What a test must not inherit from whoever runs it.
_OWN = (
    "DEDALUS_API_KEY", "DEDALUS_X_API_KEY", "DEDALUS_ORG_ID", "DEDALUS_BASE_URL",
    "DCS_PROXY_HOME", "DCS_PROXY_CONFIG", "SSH_AUTH_SOCK", "SSH_AGENT_PID", "XDG_RUNTIME_DIR",
    "XDG_CONFIG_HOME", "PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE", "HTTP_PROXY", "HTTPS_PROXY",
    "http_proxy", "https_proxy", "ALL_PROXY", "all_proxy", "NO_PROXY", "no_proxy",
    "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE",
    "DBUS_SESSION_BUS_ADDRESS", "PYTHON_KEYRING_BACKEND", "DISPLAY", "WAYLAND_DISPLAY",
)  # fmt: skip


def clean_environment() -> dict[str, str]:
    """Return the environment without anything that says who runs the tests."""
    return {key: value for key, value in os.environ.items() if key not in _OWN}


def processes() -> dict[int, tuple[int, list[str]]]:
    """Return every process: its parent and its arguments."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                arguments = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:
                continue
            found[int(entry.name)] = (parent, arguments.split("\0"))
    return found


def is_alive(pid: int) -> bool:
    """Whether there is such a process; one that has ended and was not waited for is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that is not shared with a file."""
    text = Path(f"/proc/{pid}/status").read_text()
    (line,) = [line for line in text.splitlines() if line.startswith("RssAnon:")]
    return int(line.split()[1]) * 1024


def agent_pid(path: str | os.PathLike[str]) -> int | None:
    """Return the process that listens on an agent's socket (SO_PEERCRED), None if nobody does."""
    with socket.socket(socket.AF_UNIX) as sock:
        try:
            sock.connect(os.fspath(path))
        except OSError:
            return None
        return int(
            struct.unpack("iII", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0]
        )
