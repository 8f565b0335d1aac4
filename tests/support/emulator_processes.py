"""Two ways to start an emulator: as the program, and as a fork of a process that has imported it.

A fork costs a twentieth of the program's CPU time, which is mostly Python's imports, and hundreds
of tests start one.  Everything after the imports is the same.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import IO, Protocol

from tests.support import recording_emulator

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(
    ["__main__", recording_emulator.__name__, "asyncssh", "dcs_proxy.commands.emulator",
     "dcs_proxy.emulator.serve"]
)  # fmt: skip


class EmulatorProcess(Protocol):
    """What tests do with the process of an emulator; the methods are those of Popen."""

    @property
    def pid(self) -> int: ...
    def poll(self) -> int | None: ...
    def wait(self, timeout: float) -> int: ...
    def send_signal(self, number: int) -> None: ...


def start_program(
    replies: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[EmulatorProcess, IO[bytes]]:
    """Start an emulator as a program; return its process and its standard output."""
    process = subprocess.Popen(
        [sys.executable, recording_emulator.__file__, str(replies), *arguments],
        stdout=subprocess.PIPE, env=environment,
    )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout


def fork(
    replies: Path, arguments: Sequence[str], environment: Mapping[str, str]
) -> tuple[EmulatorProcess, IO[bytes]]:
    """Fork an emulator; return its process and its standard output."""
    reader, writer = _CONTEXT.Pipe(duplex=False)
    process = _Forked(writer, str(replies), list(arguments), dict(environment))
    writer.close()
    with reader:
        return process, os.fdopen(os.dup(reader.fileno()), "rb")


class _Forked:
    def __init__(self, output: Connection, *arguments: object) -> None:
        # A daemon ends with the process that runs the tests, whatever happens to that.
        self._process = _CONTEXT.Process(target=_run, args=(output, *arguments), daemon=True)
        self._process.start()
        assert self._process.pid is not None
        self.pid: int = self._process.pid

    def poll(self) -> int | None:
        return self._process.exitcode

    def wait(self, timeout: float) -> int:
        """Return the exit status, as Popen does.  Raises TimeoutError."""
        self._process.join(timeout)
        if self._process.exitcode is None:
            raise TimeoutError
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)


def _run(
    output: Connection, replies: str, arguments: Sequence[str], environment: Mapping[str, str]
) -> None:
    """Be the emulator, in the forked process."""
    os.environ.clear()
    os.environ.update(environment)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.dup2(output.fileno(), 1)
    output.close()
    recording_emulator.run(replies, *arguments)
