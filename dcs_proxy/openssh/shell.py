"""Try the shell that ssh starts helpers with: does it run commands, and does it print anything?

ssh runs Match exec and ProxyCommand as ``$SHELL -c COMMAND`` (``/bin/sh`` if SHELL is unset).  If a
start file prints, the output goes into the connection.
"""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass

from dcs_proxy.errors import ConfigError
from dcs_proxy.local.programs import start
from dcs_proxy.text import clean_text, quote_server

_DEFAULT = "/bin/sh"
_LIMIT_S = 10.0
_MAX_OUTPUT = 4096
# The exit status that shows that our command ran; an unlikely one for a start file.
_STATUS = 73
# The files that a shell reads when it runs a command.  bash reads ~/.bashrc if stdin is a socket
# and SHLVL is unset, because it then assumes that a remote shell daemon has started it.
_START_FILES = {
    "bash": "~/.bashrc, or the file in BASH_ENV",
    "zsh": "~/.zshenv",
    "fish": "~/.config/fish/config.fish",
    "tcsh": "~/.tcshrc or ~/.cshrc",
    "csh": "~/.cshrc",
    "ksh": "the file in ENV",
    "ksh93": "the file in ENV",
    "mksh": "the file in ENV",
    "nu": "its env.nu and config.nu",
    "elvish": "its rc.elv",
}


@dataclass(frozen=True)
class Shell:
    """A tested shell: `output` is what it prints by itself, `problem` why it cannot be used."""

    path: str
    output: str = ""
    problem: str = ""

    @property
    def label(self) -> str:
        """The shell, for a message."""
        return self.path or "an empty SHELL"

    @property
    def start_files(self) -> str:
        """The files to check if it prints something, in words."""
        return _START_FILES.get(os.path.basename(self.path), "its start files")


def try_shells(environment: Mapping[str, str]) -> list[Shell]:
    """Try the user's shells: SHELL, and the login shell if that is another one.

    Desktop sessions, cron and editors are likely to use the login shell.
    """
    paths = [environment.get("SHELL", _DEFAULT)]
    try:
        paths.append(pwd.getpwuid(os.geteuid()).pw_shell or _DEFAULT)
    except KeyError:
        pass  # the user has no entry in the user database, and so no login shell
    return [try_shell(path, environment) for path in dict.fromkeys(paths)]


def check_shell_is_silent(environment: Mapping[str, str]) -> None:
    """Raise ConfigError if the shell that has started us prints something when it starts."""
    shell = try_shell(environment.get("SHELL", _DEFAULT), environment)
    if shell.output:
        raise ConfigError(
            f"your shell {shell.path} prints something when it starts, which breaks the"
            f" connection: {quote_server(shell.output)}",
            hint=f"look at {shell.start_files}; or run dcs-proxy config-ssh, which works around it",
        )


def try_shell(path: str, environment: Mapping[str, str]) -> Shell:
    """Run a command in the shell, first as an ssh started by a desktop does, then as in a terminal.

    The difference is SHLVL, see _START_FILES.
    """
    from_desktop = {name: value for name, value in environment.items() if name != "SHLVL"}
    shell = _run(path, from_desktop)
    return shell if shell.output or shell.problem else _run(path, {**from_desktop, "SHLVL": "1"})


def _run(path: str, environment: Mapping[str, str]) -> Shell:
    try:
        # ssh does not look for it in PATH.
        os.stat(path)
    except OSError as error:
        return Shell(path, problem=f"cannot be run: {error.strerror}")
    ours, theirs = socket.socketpair()
    with ours:
        try:
            with theirs:
                process = start(
                    [path, "-c", f"exec /bin/sh -c 'exit {_STATUS}'"],
                    stdin=theirs.fileno(), stdout=theirs.fileno(),
                    environment=environment, new_session=True,
                )  # fmt: skip
        except OSError as error:
            return Shell(path, problem=f"cannot be run: {error.strerror}")
        try:
            status = process.wait(_LIMIT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            return Shell(path, problem=f"did not run a command within {_LIMIT_S:g} s")
        ours.setblocking(False)
        try:
            output = ours.recv(_MAX_OUTPUT).decode("utf-8", "replace")
        except BlockingIOError:
            output = ""
    if status != _STATUS:
        said = f" and says {quote_server(output)}" if output.strip() else ""
        return Shell(path, problem=f"does not run commands (status {status}){said}")
    return Shell(path, output=clean_text(output) or ("blank lines" if output else ""))
