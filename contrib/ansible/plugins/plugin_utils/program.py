"""Run the program dcs-proxy for a plugin."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

# Each option of a plugin, and the variable of the program's environment that it sets.
_VARIABLES = {
    "api_key": "DEDALUS_API_KEY",
    "api_key_file": "DCS_PROXY_KEY_FILE",
    "base_url": "DEDALUS_BASE_URL",
    "org_id": "DEDALUS_ORG_ID",
}
_KEY_VARIABLES = ("DEDALUS_API_KEY", "DEDALUS_X_API_KEY")
# How the program begins a line that says what to do about the message before it.
HINT = "dcs-proxy: hint: "
OPTIONS = ("program", "home", "config", "api_key", "api_key_file", "base_url", "org_id")


class ProgramFailed(Exception):
    """The program could not be run, or failed; the text says why."""


class Program:
    """The program, with the options of the doc fragment dedalus.dcs.program.

    Attributes: `path`, for messages; `environment`, which has the API key, since other users may
    read arguments.
    """

    def __init__(self, options: Mapping[str, Any]) -> None:
        """`options` has those that are set.  Raises ProgramFailed without a program or a key."""
        given = {name: str(options[name]) for name in OPTIONS if options.get(name)}
        self.path = os.path.expanduser(given.get("program", "dcs-proxy"))
        self._words = [_find(self.path)]
        for name in ("home", "config"):
            if name in given:
                self._words += [f"--{name}", os.path.expanduser(given[name])]
        if "api_key_file" in given:
            if "api_key" in given:
                raise ProgramFailed("api_key and api_key_file exclude each other")
            given["api_key_file"] = _key_file(given["api_key_file"])
        self.environment = dict(os.environ)
        if "api_key" in given or "api_key_file" in given:
            # The program would send both keys, or ignore the file.
            for name in _KEY_VARIABLES:
                self.environment.pop(name, None)
        for name, variable in _VARIABLES.items():
            if name in given:
                self.environment[variable] = given[name]

    def run(self, words: Sequence[str], timeout_s: int | None) -> subprocess.CompletedProcess[str]:
        """Run a command of the program.  Raises ProgramFailed if it does not end by itself."""
        try:
            done = subprocess.run(
                [*self._words, *words], env=self.environment, timeout=timeout_s, check=False,
                stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace",
            )  # fmt: skip
        except OSError as error:
            raise ProgramFailed(_cannot_run(self.path, error.strerror)) from None
        except subprocess.TimeoutExpired:
            raise ProgramFailed(
                f"{self.path} {words[0]} did not finish within {timeout_s} s"
            ) from None
        if done.returncode < 0:
            raise ProgramFailed(f"{self.path} was killed by signal {-done.returncode}")
        return done


def last_error(stderr: str) -> str:
    """Return the last message that the program wrote to stderr with its hint, on one line.

    What it wrote before is progress.
    """
    lines = stderr.splitlines()
    starts = [n for n, line in enumerate(lines) if not line.startswith(HINT)]
    error = lines[starts[-1] if starts else 0 :]
    return "; ".join(line.removeprefix("dcs-proxy: ") for line in error)


def _cannot_run(path: str, why: str | None) -> str:
    return (
        f"cannot run {path}: {why}; hint: install dcs-proxy, or set the option program to its path"
    )


def _find(program: str) -> str:
    """Return the path of a program; one that is named without a path is looked for in PATH.

    Relative entries of PATH are skipped: the current directory is often a project of others.
    Raises ProgramFailed if there is none.
    """
    if "/" in program:
        return program
    for directory in os.environ.get("PATH", os.defpath).split(os.pathsep):
        path = os.path.join(directory, program)
        if os.path.isabs(directory) and os.path.isfile(path) and os.access(path, os.X_OK):
            return path
    raise ProgramFailed(_cannot_run(program, os.strerror(errno.ENOENT)))


def _key_file(path: str) -> str:
    """Return the absolute path of a key file.  Raises ProgramFailed if it does not exist.

    The program would then use a key from elsewhere.  It also refuses a file that others can use.
    """
    path = os.path.abspath(os.path.expanduser(path))
    if not os.path.exists(path):
        raise ProgramFailed(f"the API key file {path} does not exist")
    return path
