"""The errors that users see: one class per exit code, each with a message and a hint.

An error is at most two lines on stderr, and the same text goes through ssh:

    dcs-proxy: dm-foo: what happened
    dcs-proxy: hint: what to do next

A message does not begin with a capital letter or end with a full stop.  Text from a server is
quoted with :func:`dcs_proxy.text.quote_server`; the message as a whole is made safe here.
Exit codes are documented and stable: ``--help`` and the man page show the first line of each
class's docstring.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from dcs_proxy.text import LINE_LIMIT, clean_text, safe_line


class DcsError(Exception):
    """An error that users see; the base class of all others.

    `message` says what happened, `hint` what to do or type next (may be empty), `machine` which
    machine it is about, if any.  `was_shown` says that the user has seen the error already,
    `was_logged` that the log has it.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", machine: str | None = None) -> None:
        self.message = safe_line(message, LINE_LIMIT)
        self.hint = safe_line(hint, LINE_LIMIT)
        super().__init__(self.message)
        self.machine = machine
        self.was_shown = False
        self.was_logged = False

    def one_line(self) -> str:
        """Return message and hint on one line, as in the disconnect message that ssh shows."""
        return "; hint: ".join([self.summary(), *([self.hint] if self.hint else [])])

    def summary(self) -> str:
        """Return the message, after the machine's name if there is one."""
        return f"{self.machine}: {self.message}" if self.machine else self.message

    def lines(self) -> list[str]:
        """Return the one or two lines that the user sees, without line ends."""
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
    """The API key is missing, or the API rejects it (401)."""

    exit_code = 4


class KeyringUnusable(CredentialsError):
    """This computer has no system keyring that stores secrets safely."""


class Forbidden(DcsError):
    """The API key does not permit this (403)."""

    exit_code = 5


class MachineNotFound(DcsError):
    """The machine does not exist (404)."""

    exit_code = 6


class MachineUnreachable(MachineNotFound):
    """The API does not know, or cannot reach, a machine that may have been created just now."""


class ApiUnavailable(DcsError):
    """The control plane cannot be reached, or is temporarily unavailable."""

    exit_code = 7


class ApiProtocolError(DcsError):
    """The control plane sent a response that breaks its contract."""

    exit_code = 8


class IdempotencyConflict(ApiProtocolError):
    """The API has already seen this Idempotency-Key with a different request (409)."""


class SessionFailed(DcsError):
    """The session failed, expired or was closed before it could be used."""

    exit_code = 9


class LoginRefused(SessionFailed):
    """The gateway does not accept the session's login."""


class DeadlineExceeded(DcsError):
    """A time limit passed, such as wake_seconds."""

    exit_code = 10


class Untrusted(DcsError):
    """A certificate or host key failed verification; no connection was made."""

    exit_code = 11


class AgentUnavailable(DcsError):
    """The ssh-agent cannot be reached or started."""

    exit_code = 12


class AgentRefused(DcsError):
    """The ssh-agent refused a request (SSH_AGENT_FAILURE, RFC 9987)."""

    exit_code = 13


class StateError(DcsError):
    """The state directory cannot be used (permissions, owner or disk space)."""

    exit_code = 14


class GatewayUnreachable(DcsError):
    """The gateway cannot be reached."""

    exit_code = 15


class LoginMismatch(DcsError):
    """ssh would log in with a user name that is not the session's."""

    exit_code = 16


class NotWoken(DcsError):
    """The machine is asleep, and the setting "wake" forbids waking it."""

    exit_code = 17


class ClientGone(DcsError):
    """The user interrupted the command, or ssh exited while it ran."""

    exit_code = 130


class ReaderGone(ClientGone):
    """The reader closed the pipe (``| head``); this is not a failure."""

    exit_code = 0


def exit_codes() -> list[tuple[int, str]]:
    """Return every exit code and what it means, lowest first."""
    # Their own subclasses have the same exit codes.
    kinds = DcsError.__subclasses__()
    codes = [(kind.exit_code, (kind.__doc__ or "").splitlines()[0]) for kind in kinds]
    return sorted(
        [
            (0, "Success."),
            (DcsError.exit_code, "Any other failure, or a failed doctor check."),
            *codes,
        ]
    )


@contextlib.contextmanager
def attribute_errors_to(host: str) -> Iterator[None]:
    """Set the machine of each DcsError that the block raises to `host`, unless it has one."""
    try:
        yield
    except UsageError:
        raise  # it quotes what the user typed, which may not be a valid name
    except DcsError as error:
        error.machine = error.machine or clean_text(host)
        raise
