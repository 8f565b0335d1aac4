"""Everything that can go wrong: one class per exit code, a message and a hint.

What the user reads is at most two lines on stderr (and the same text through ssh):

    dcs-proxy: dm-foo: what happened
    dcs-proxy: hint: what to do next

No capital letter to begin with, no full stop at the end.  Text from a server is quoted with
:func:`quote_server`, never printed as it came.  The exit codes are documented and stable.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

SERVER_TEXT_LIMIT = 200


class DcsError(Exception):
    """A failure that a person can meet; the base of all the others.

    `message` says what happened, `hint` the next thing to do or type (may be empty),
    `machine` the machine's name where one is concerned.
    """

    exit_code = 1
    default_hint = ""

    def __init__(self, message: str, *, hint: str = "", machine: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        self.machine = machine
        self.was_shown = False  # by another process of the same ssh

    def one_line(self) -> str:
        """Return the whole on one line, as it goes through ssh in a disconnect message."""
        return "; hint: ".join([self.summary(), *([self.hint] if self.hint else [])])

    def summary(self) -> str:
        """Return the machine's name, where there is one, and the message."""
        return f"{self.machine}: {self.message}" if self.machine else self.message

    def lines(self) -> list[str]:
        """Return the one or two lines that a person reads, without line ends."""
        lines = [f"dcs-proxy: {self.summary()}"]
        if self.hint:
            lines.append(f"dcs-proxy: hint: {self.hint}")
        return lines


class UsageError(DcsError):
    """The command line is wrong."""

    exit_code = 2


class ConfigError(DcsError):
    """The config file, the environment or the ssh config cannot be used."""

    exit_code = 3


class CredentialsError(DcsError):
    """There is no API key, or the API does not accept it (401)."""

    exit_code = 4


class KeyringUnusable(CredentialsError):
    """This computer has no system keyring that keeps secrets safely."""


class Forbidden(DcsError):
    """The API key may not do this (403)."""

    exit_code = 5


class MachineNotFound(DcsError):
    """The API does not know the machine (404 on create)."""

    exit_code = 6


class ApiUnavailable(DcsError):
    """The control plane cannot be reached, or is temporarily unavailable."""

    exit_code = 7


class ApiProtocolError(DcsError):
    """The control plane's answer is not what the contract promises."""

    exit_code = 8


class IdempotencyConflict(ApiProtocolError):
    """The API has seen this Idempotency-Key with another request (409)."""


class SessionFailed(DcsError):
    """The session ended before it was of use: failed, closed or expired."""

    exit_code = 9


class DeadlineExceeded(DcsError):
    """The machine did not become ready within wake_seconds."""

    exit_code = 10


class Untrusted(DcsError):
    """A certificate or host trust does not hold; no connection is made."""

    exit_code = 11


class AgentUnavailable(DcsError):
    """The ssh-agent cannot be reached or started."""

    exit_code = 12


class AgentRefused(DcsError):
    """The ssh-agent answered SSH_AGENT_FAILURE (RFC 9987)."""

    exit_code = 13


class StateError(DcsError):
    """The state directory cannot be used: permissions, owner, space."""

    exit_code = 14


class GatewayUnreachable(DcsError):
    """No address of the session's endpoint accepted a connection."""

    exit_code = 15


class LoginMismatch(DcsError):
    """ssh is about to log in as another user than the session's."""

    exit_code = 16


class NotWoken(DcsError):
    """The machine is asleep, and the setting "wake" forbids waking it."""

    exit_code = 17


class ClientGone(DcsError):
    """The ssh that asked is no longer there, or the user interrupted it."""

    exit_code = 130


class ReaderGone(ClientGone):
    """Nobody reads the results any more (``| head``), who has then seen enough: no failure."""

    exit_code = 0


def exit_codes() -> list[tuple[int, str]]:
    """Return every exit code and what it means, lowest first."""
    # Their subclasses share their codes.
    kinds = DcsError.__subclasses__()
    codes = [(kind.exit_code, (kind.__doc__ or "").splitlines()[0]) for kind in kinds]
    return sorted(
        [
            (0, "Success."),
            (DcsError.exit_code, "Any other failure, or a fault that doctor found."),
            *codes,
        ]
    )


@contextlib.contextmanager
def concerning(host: str) -> Iterator[None]:
    """Let every DcsError from inside the block name the machine that the user asked for."""
    try:
        yield
    except UsageError:
        raise  # it quotes what was asked for, which may be no name at all
    except DcsError as error:
        error.machine = error.machine or clean_text(host)
        raise


def clean_text(text: str, limit: int = SERVER_TEXT_LIMIT) -> str:
    """Return `text` on one line, without control or format characters, cut to `limit`.

    Printable is what :meth:`str.isprintable` says, so terminal escapes, bidirectional overrides
    and line separators become spaces.
    """
    head = text[: 4 * limit]
    words = "".join(c if c.isprintable() else " " for c in head).split()
    line = " ".join(words)
    return line if len(line) <= limit else line[: limit - 1] + "…"


def quote_server(text: str) -> str:
    """Return text that a server chose, cleaned and in quotation marks."""
    return f'"{clean_text(text)}"'
