"""Why the last attempt for a machine failed, so that other processes need not find out again."""

from __future__ import annotations

from dcs_proxy.errors import DcsError, clean_text
from dcs_proxy.names import MachineName
from dcs_proxy.session.context import Context
from dcs_proxy.session.records import Failure

_BY_EXIT_CODE = {kind.exit_code: kind for kind in DcsError.__subclasses__()}


def save_failure(name: MachineName, error: DcsError, context: Context) -> None:
    """Write why an attempt failed, if that is possible."""
    failure = Failure(
        exit_code=error.exit_code,
        message=error.message,
        hint=error.hint,
        failed_at=context.now(),
        client=context.client,
    )
    try:
        context.state.save_failure(name, failure)
    except DcsError:
        pass  # the failure itself is what the user must read


def to_error(failure: Failure, *, was_shown: bool) -> DcsError:
    """Return the error that a failure was; `was_shown` if the user has read it before."""
    kind = _BY_EXIT_CODE.get(failure.exit_code, DcsError)
    error = kind(clean_text(failure.message, 1000), hint=clean_text(failure.hint, 1000))
    error.was_shown = was_shown
    return error
