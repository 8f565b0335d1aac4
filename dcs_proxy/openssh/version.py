"""The OpenSSH client that is installed: which version it is, and what that version lacks."""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import NamedTuple

from dcs_proxy.errors import ConfigError, clean_text

_VERSION = re.compile(r"OpenSSH_(?:for_\w+_)?([0-9]{1,4})\.([0-9]{1,4})")
_LIMIT_S = 10


class Version(NamedTuple):
    """A version of OpenSSH, without the portable patch level."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


# The oldest that it was run with.  Before 7.6 it cannot work: ssh looked for the host's name in a
# host certificate, not for HostKeyAlias (bug 2728).
OLDEST = Version(7, 9)
# ForwardAgent takes the path of an agent.
FORWARDS_ANY_AGENT = Version(8, 2)
# An agent can hold an identity for one destination only (PROTOCOL.agent, restrict-destination).
BINDS_IDENTITIES = Version(8, 9)


class Client(NamedTuple):
    """An ssh program: its path, the first words of ``ssh -V``, and the version in them."""

    path: str
    text: str
    version: Version


def find_client() -> Client:
    """Return the first ssh in PATH.  Raises ConfigError: none, not OpenSSH, or too old."""
    path = shutil.which("ssh")
    if path is None:
        raise ConfigError("there is no ssh in PATH", hint="install openssh-client")
    text = _ask_version(path)
    version = parse_version(text)
    if version is None:
        raise ConfigError(f"{path} is not OpenSSH: {text}", hint="install openssh-client")
    if version < OLDEST:
        raise ConfigError(f"{text} at {path} is too old", hint=f"install OpenSSH {OLDEST} or later")
    return Client(path, text, version)


def parse_version(text: str) -> Version | None:
    """Return the version that ``ssh -V`` tells; None if it is not OpenSSH's."""
    match = _VERSION.match(text)
    return Version(int(match[1]), int(match[2])) if match else None


def missing_features(version: Version) -> list[str]:
    """Return what `version` cannot do and later ones can, each a sentence; the worst first."""
    lost = []
    if version < FORWARDS_ANY_AGENT:
        lost.append(
            "ssh -A would give machines the agent that logs in to them, so never use it with "
            f"them; ForwardAgent in the config is off ({FORWARDS_ANY_AGENT} forwards your own)"
        )
    if version < BINDS_IDENTITIES:
        lost.append(
            "the agent cannot bind a certificate to its machine's host key "
            f"({BINDS_IDENTITIES} can)"
        )
    return lost


def _ask_version(path: str) -> str:
    try:
        done = subprocess.run(
            [path, "-V"], capture_output=True, text=True, errors="replace", check=False,
            stdin=subprocess.DEVNULL, timeout=_LIMIT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return clean_text(str(error))
    return clean_text(done.stderr).partition(",")[0]
