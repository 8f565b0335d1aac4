"""Start other programs: ssh, ssh-agent, a shell, the keyring's process.

No other module starts programs, but a few replace this process by another of ours.  A program is
named by an absolute path, and its PATH has no relative entries, because others may control the
current directory.  It never gets the API key from our environment, and at most a limited part of
its output is read.
"""

from __future__ import annotations

import os
import selectors
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    import subprocess

# Where the API key may be: as a Bearer token, as an x-api-key header.
SECRET_VARIABLES = ("DEDALUS_API_KEY", "DEDALUS_X_API_KEY")
# In bytes, for each stream; more than ssh prints with -vvv.
MAX_OUTPUT = 256 * 1024
_TURN_S = 0.1


# Homebrew first: it may be installed beside the system's own package manager.
_INSTALL = {
    "brew": "brew install openssh",
    "apt-get": "sudo apt-get install openssh-client",
    "dnf": "sudo dnf install openssh-clients",
    "apk": "sudo apk add openssh-client",
    "pacman": "sudo pacman -S openssh",
    "zypper": "sudo zypper install openssh-clients",
    "pkg": "sudo pkg install openssh-portable",
}
_MANAGER_DIRECTORIES = ("/usr/bin", "/sbin", "/usr/sbin", "/opt/homebrew/bin", "/usr/local/bin")


@dataclass(frozen=True)
class Output:
    """What a program did: its exit status (negative for a signal) and what it printed.

    `is_cut` says that it printed more than the limit and was killed.
    """

    status: int
    stdout: bytes
    stderr: bytes
    is_cut: bool = False


def find_program(
    name: str, environment: Mapping[str, str], more_directories: Iterable[str] = ()
) -> str | None:
    """Return the absolute path of the first program `name` in PATH, then in `more_directories`.

    Relative entries of PATH are skipped; an empty one means the current directory.
    """
    entries = environment.get("PATH", os.defpath).split(os.pathsep)
    for directory in (*entries, *more_directories):
        path = os.path.join(directory, name)
        if os.path.isabs(directory) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    return None


def install_hint(environment: Mapping[str, str]) -> str:
    """Return a hint: how to install OpenSSH's client with this computer's package manager."""
    for manager, command in _INSTALL.items():
        if find_program(manager, environment, _MANAGER_DIRECTORIES) is not None:
            return f"install OpenSSH's client: {command}"
    return "install OpenSSH's client"


def start(
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    stdin: int | None = None,
    stdout: int | None = None,
    stderr: int | None = None,
    cwd: str | None = None,
    new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """Start a program with a cleaned copy of `environment`; the caller waits for it.

    The streams are descriptors or constants of `subprocess`, by default /dev/null.  In a new
    session the program has no terminal, and Ctrl-C does not end it.  Raises OSError if it cannot be
    run, FileNotFoundError if its path is not absolute.
    """
    import subprocess  # slow to import, and a warm ssh starts nothing

    if not os.path.isabs(words[0]):
        raise FileNotFoundError(2, "not an absolute path", words[0])
    null = subprocess.DEVNULL
    return subprocess.Popen(
        list(words),
        stdin=null if stdin is None else stdin,
        stdout=null if stdout is None else stdout,
        stderr=null if stderr is None else stderr,
        cwd=cwd,
        env=_clean(environment),
        start_new_session=new_session,
    )


def _clean(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment without the API key and the relative entries of PATH."""
    clean = {name: text for name, text in environment.items() if name not in SECRET_VARIABLES}
    if "PATH" in clean:
        entries = [each for each in clean["PATH"].split(os.pathsep) if os.path.isabs(each)]
        clean["PATH"] = os.pathsep.join(entries) or os.defpath
    return clean


def run(
    words: Sequence[str],
    *,
    environment: Mapping[str, str],
    limit_s: float,
    turn: Callable[[], None] = lambda: None,
    max_output: int = MAX_OUTPUT,
) -> Output:
    """Run a program without input until it ends; kill it if it prints more than `max_output`.

    `turn` is called about ten times a second.  Raises TimeoutError after `limit_s`, OSError if the
    program cannot be run, and whatever `turn` raises; in each case the program is killed.
    """
    import subprocess

    process = start(
        words, environment=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )  # fmt: skip
    with process:
        try:
            return _finish(process, time.monotonic() + limit_s, turn, max_output)
        finally:
            if process.poll() is None:
                process.kill()


def _finish(
    process: subprocess.Popen[bytes], end: float, turn: Callable[[], None], max_output: int
) -> Output:
    """Return what the process prints until it exits, or prints too much."""
    reader = _Reader([stream for stream in (process.stdout, process.stderr) if stream], max_output)
    with reader.selector:
        while process.poll() is None and not reader.is_full():
            turn()
            if time.monotonic() >= end:
                raise TimeoutError
            # If both streams are closed, this only waits for the exit.
            reader.read(min(_TURN_S, max(0.0, end - time.monotonic())))
        # A background process may keep the streams open for ever, so read only what is there.
        while not reader.is_full() and reader.read(0):
            pass
        if is_cut := reader.is_full():
            process.kill()
    stdout, stderr = reader.parts
    return Output(process.wait(), bytes(stdout), bytes(stderr), is_cut)


class _Reader:
    """Collects the bytes of streams: `parts` has those of each, at most `limit`."""

    def __init__(self, streams: Sequence[IO[bytes]], limit: int) -> None:
        self.limit = limit
        self.parts = [bytearray() for _ in streams]
        self.selector = selectors.DefaultSelector()
        for stream, part in zip(streams, self.parts, strict=True):
            self.selector.register(stream, selectors.EVENT_READ, part)

    def is_full(self) -> bool:
        return any(len(part) >= self.limit for part in self.parts)

    def read(self, wait_s: float) -> bool:
        """Read once from each stream that has something; return whether one had."""
        if not self.selector.get_map():
            time.sleep(min(wait_s, 0.01))
            return False
        ready = self.selector.select(wait_s)
        for key, _ in ready:
            part: bytearray = key.data
            data = os.read(key.fd, min(65536, self.limit - len(part)))
            if data:
                part += data
            else:
                self.selector.unregister(key.fileobj)
        return bool(ready)
