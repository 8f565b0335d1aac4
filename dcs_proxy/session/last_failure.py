"""Why the last attempt for a machine failed, so that waiting processes need not try it again."""

from __future__ import annotations

from dcs_proxy.errors import DcsError
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import Context
from dcs_proxy.session.records import Failure
from dcs_proxy.text import clean_text

_BY_EXIT_CODE = {kind.exit_code: kind for kind in DcsError.__subclasses__()}


def save_failure(name: MachineName, error: DcsError, context: Context) -> None:
    """Write why an attempt failed, if that is possible."""
    try:
        context.state.save_failure(name, to_failure(error, context.now()))
    except DcsError:
        pass  # it must not hide the failure itself


def to_failure(error: DcsError, failed_at: float) -> Failure:
    """Return an error as a failure that can be written to a file."""
    return Failure(error.exit_code, error.message, error.hint, failed_at)


def to_error(failure: Failure) -> DcsError:
    """Return the error that a failure was made from."""
    kind = _BY_EXIT_CODE.get(failure.exit_code, DcsError)
    return kind(clean_text(failure.message, 1000), hint=clean_text(failure.hint, 1000))
