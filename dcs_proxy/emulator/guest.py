"""The emulated machine: shells, commands with and without a terminal, and SFTP.

A machine is just a home directory; its programs are those of this computer.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import struct
import termios
from collections.abc import Awaitable, Callable, Mapping

import asyncssh

from dcs_proxy.emulator.machines import SshSession
from dcs_proxy.local.programs import find_program

_CHUNK = 64 * 1024
_ACCEPTED = ("LANG", "LC_", "COLORTERM", "GIT_PROTOCOL")
# A session leader that opens a terminal gets it as its controlling terminal, so that no code has to
# run between fork and exec.
_ON_TERMINAL = 'exec <>"$SSH_TTY" >&0 2>&1; exec "$@"'


class Guest:
    """One shell or command, from its start until all its output has been sent."""

    def __init__(
        self,
        process: asyncssh.SSHServerProcess[bytes],
        session: SshSession,
        home: str,
        x_authority: str,
    ) -> None:
        self._process = process
        self._session = session
        self._home = home
        self._x_authority = x_authority
        self._program: asyncio.subprocess.Process | None = None
        self._master = -1
        self._readable = asyncio.Event()
        self._has_ended = False

    async def run(self) -> None:
        """Run what the client requested, and report its exit status."""
        if self._process.term_type is None:
            await self._run_on_pipes()
        else:
            await self._run_on_terminal()

    def hang_up(self) -> None:
        """Send SIGHUP, because the client has disconnected."""
        self._signal(signal.SIGHUP)

    def kill(self) -> None:
        """End the program."""
        self._signal(signal.SIGKILL)

    async def _run_on_pipes(self) -> None:
        pipe = asyncio.subprocess.PIPE
        program = self._program = await asyncio.create_subprocess_exec(
            *self._command(), stdin=pipe, stdout=pipe, stderr=pipe,
            start_new_session=True, cwd=self._home, env=self._environment(),
        )  # fmt: skip
        if program.stdin is None or program.stdout is None or program.stderr is None:
            raise ValueError("the program was started without pipes")
        writer = program.stdin

        async def write(data: bytes) -> None:
            writer.write(data)
            await writer.drain()

        input_ = asyncio.create_task(self._copy_input(write, writer.close))
        gone = asyncio.create_task(self._watch())
        await asyncio.gather(
            _copy(program.stdout.read, self._process.stdout),
            _copy(program.stderr.read, self._process.stderr),
        )
        await self._finish(program, input_, gone)

    async def _run_on_terminal(self) -> None:
        self._master, slave = os.openpty()
        self._resize(*self._process.term_size)
        terminal = os.ttyname(slave)
        environment = self._environment()
        environment["SSH_TTY"] = terminal
        environment["TERM"] = self._process.term_type or "dumb"
        null = asyncio.subprocess.DEVNULL
        program = self._program = await asyncio.create_subprocess_exec(
            "/bin/sh", "-c", _ON_TERMINAL, "sh", *self._command(), stdin=null, stdout=null,
            stderr=null, start_new_session=True, cwd=self._home, env=environment,
        )  # fmt: skip
        os.set_blocking(self._master, False)
        input_ = asyncio.create_task(self._copy_input(self._type, self._type_eof))
        gone = asyncio.create_task(self._watch())
        output = asyncio.create_task(_copy(self._read_terminal, self._process.stdout))
        await program.wait()
        # This closes the terminal, unless a background program still has it open.
        os.close(slave)
        self._has_ended = True
        self._readable.set()
        await output
        await self._finish(program, input_, gone)
        os.close(self._master)
        self._master = -1

    async def _finish(
        self,
        program: asyncio.subprocess.Process,
        input_: asyncio.Task[None],
        gone: asyncio.Task[None],
    ) -> None:
        status = await program.wait()
        input_.cancel()
        gone.cancel()
        with contextlib.suppress(OSError, asyncssh.Error):
            if status < 0:
                name = signal.Signals(-status).name.removeprefix("SIG")
                self._process.exit_with_signal(name)
            else:
                self._process.exit(status)

    async def _copy_input(
        self, write: Callable[[bytes], Awaitable[None]], close: Callable[[], None]
    ) -> None:
        """Copy input, pass signals and terminal sizes on, until the client closes its input."""
        with contextlib.suppress(OSError, asyncssh.Error):
            while True:
                try:
                    data = await self._process.stdin.read(_CHUNK)
                except asyncssh.TerminalSizeChanged as size:
                    self._resize(*size.term_size)
                except asyncssh.SignalReceived as received:
                    self._signal(getattr(signal, f"SIG{received.signal}", signal.SIGTERM))
                except asyncssh.BreakReceived:
                    self._signal(signal.SIGINT)
                else:
                    if not data:
                        break
                    await write(data)
        with contextlib.suppress(OSError):
            close()

    async def _watch(self) -> None:
        await self._process.channel.wait_closed()
        self.hang_up()

    async def _type(self, data: bytes) -> None:
        loop = asyncio.get_running_loop()
        while data:
            try:
                data = data[os.write(self._master, data) :]
            except BlockingIOError:
                writable = asyncio.Event()
                loop.add_writer(self._master, writable.set)
                await writable.wait()
                loop.remove_writer(self._master)

    def _type_eof(self) -> None:
        os.write(self._master, b"\x04")

    async def _read_terminal(self, size: int) -> bytes:
        loop = asyncio.get_running_loop()
        while True:
            self._readable.clear()
            try:
                return os.read(self._master, size)
            except BlockingIOError:
                if self._has_ended:
                    return b""
                loop.add_reader(self._master, self._readable.set)
                await self._readable.wait()
                loop.remove_reader(self._master)
            except OSError:
                return b""  # EIO: no program has the terminal open

    def _resize(self, width: int, height: int, pixel_width: int, pixel_height: int) -> None:
        if self._master >= 0:
            size = struct.pack("HHHH", height, width, pixel_width, pixel_height)
            fcntl.ioctl(self._master, termios.TIOCSWINSZ, size)

    def _signal(self, number: int) -> None:
        if self._program is not None and self._program.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._program.pid, number)

    def _command(self) -> list[str]:
        shell = _shell()
        if self._process.command is None:
            return [shell, "-l"]
        return [shell, "-c", self._process.command]

    def _environment(self) -> dict[str, str]:
        given: Mapping[str, str] = self._process.env
        environment = {
            **{key: value for key, value in given.items() if key.startswith(_ACCEPTED)},
            "PATH": os.environ.get("PATH", os.defpath),
            "HOME": self._home,
            "USER": self._session.username,
            "LOGNAME": self._session.username,
            "SHELL": _shell(),
            "DCS_MACHINE": self._session.machine.name,
        }
        agent = self._process.channel.get_agent_path()
        if agent:
            environment["SSH_AUTH_SOCK"] = agent
        display = self._process.channel.get_x11_display()
        if display:
            environment.update(DISPLAY=display, XAUTHORITY=self._x_authority)
        return environment


class GuestSFTPServer(asyncssh.SFTPServer):
    """Serves files: relative paths start at `home`, absolute ones are those of this computer."""

    def __init__(self, channel: asyncssh.SSHServerChannel[bytes], home: str) -> None:
        super().__init__(channel)
        self._home = home.encode()

    def map_path(self, path: bytes) -> bytes:
        return os.path.join(self._home, path)

    def exit(self) -> None:
        """End the channel with status 0, which scp requires."""
        with contextlib.suppress(OSError, asyncssh.Error):
            self.channel.exit(0)


async def _copy(read: Callable[[int], Awaitable[bytes]], writer: asyncssh.SSHWriter[bytes]) -> None:
    """Copy all output; if the client disconnects, discard the rest, so that the program can end."""
    gone = False
    while data := await read(_CHUNK):
        if not gone:
            try:
                writer.write(data)
                await writer.drain()
            except (OSError, asyncssh.Error):
                gone = True


def _shell() -> str:
    return find_program("bash", os.environ) or "/bin/sh"
