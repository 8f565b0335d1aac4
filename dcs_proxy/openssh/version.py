"""The installed OpenSSH client: its version, and the features that the version lacks."""

from __future__ import annotations

import os
import re
from typing import NamedTuple

from dcs_proxy.errors import ConfigError
from dcs_proxy.local.programs import find_program, install_hint, run
from dcs_proxy.text import clean_text

_VERSION = re.compile(r"OpenSSH_(?:for_\w+_)?([0-9]{1,4})\.([0-9]{1,4})")
_LIMIT_S = 10


class Version(NamedTuple):
    """A version of OpenSSH, without the portable patch level."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


# The oldest version that was tested.  Versions before 7.6 cannot work: they compare the principals
# of a host certificate with the host name instead of HostKeyAlias (bug 2728).
OLDEST = Version(7, 9)
# From here on, ForwardAgent accepts the path of an agent.
FORWARDS_ANY_AGENT = Version(8, 2)
# From here on, an agent can restrict an identity to one destination (PROTOCOL.agent,
# restrict-destination-v00@openssh.com).
BINDS_IDENTITIES = Version(8, 9)


class Client(NamedTuple):
    """An ssh program: its path, the first words of ``ssh -V``, and the version in them."""

    path: str
    text: str
    version: Version


def find_client() -> Client:
    """Return the first ssh in PATH.

    Raises ConfigError if there is none, or if it is not OpenSSH or too old.
    """
    path = find_program("ssh", os.environ)
    if path is None:
        raise ConfigError("there is no ssh in PATH", hint=install_hint(os.environ))
    return read_client(path)


def read_client(path: str) -> Client:
    """Return the ssh at `path`.  Raises ConfigError if it is not OpenSSH, or too old."""
    text = _ask_version(path)
    version = parse_version(text)
    if text.startswith("No user exists for uid"):
        raise ConfigError(
            f"user id {os.geteuid()} has no entry in the user database, and ssh does not run"
            " without one",
            hint="add a line for it to /etc/passwd (a container can do so when it starts)",
        )
    if version is None:
        raise ConfigError(f"{path} is not OpenSSH: {text}", hint=install_hint(os.environ))
    if version < OLDEST:
        raise ConfigError(f"{text} at {path} is too old", hint=f"install OpenSSH {OLDEST} or later")
    return Client(path, text, version)


def parse_version(text: str) -> Version | None:
    """Return the version in the output of ``ssh -V``; None if the program is not OpenSSH."""
    match = _VERSION.match(text)
    return Version(int(match[1]), int(match[2])) if match else None


def missing_features(version: Version) -> list[str]:
    """Return a sentence for each feature that `version` lacks, the most important first."""
    missing = []
    if version < FORWARDS_ANY_AGENT:
        missing.append(
            "never use ssh -A with a machine: it would forward the agent that holds the "
            "certificates; ForwardAgent is off in the config "
            f"(OpenSSH {FORWARDS_ANY_AGENT} can forward your own agent)"
        )
    if version < BINDS_IDENTITIES:
        missing.append(
            "the agent cannot restrict a certificate to the gateway's host key "
            f"(OpenSSH {BINDS_IDENTITIES} can)"
        )
    return missing


def _ask_version(path: str) -> str:
    try:
        done = run([path, "-V"], environment=os.environ, limit_s=_LIMIT_S)
    except TimeoutError:
        return f"no answer after {_LIMIT_S} s"
    except OSError as error:
        return clean_text(str(error))
    return clean_text(done.stderr.decode("utf-8", "replace")).partition(",")[0]
