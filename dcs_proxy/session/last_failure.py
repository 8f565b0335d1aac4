"""Why the last try for a machine failed, told to whoever need not find out again."""

from __future__ import annotations

from collections.abc import Callable

from dcs_proxy.errors import (
    ApiUnavailable,
    DcsError,
    DeadlineExceeded,
    MachineNotFound,
    SessionFailed,
    clean_text,
)
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Failure

# ssh runs ProxyCommand right after prepare has failed: it need not fail once more, slowly.
_SAME_CLIENT_S = 5.0
# LastFailure that say nothing about the process that met them.
_SHARED = (SessionFailed, DeadlineExceeded, ApiUnavailable, MachineNotFound)
_BY_EXIT_CODE = {kind.exit_code: kind for kind in DcsError.__subclasses__()}


class LastFailure:
    """One machine's last failure, as the ssh process `client` sees it; `now` gives unix time."""

    def __init__(
        self,
        name: MachineName,
        state: StateDirectory,
        client: str,
        now: Callable[[], float],
    ) -> None:
        self._name = name
        self._state = state
        self._client = client
        self._now = now
        self._started_at = now()

    def save(self, error: DcsError) -> None:
        """Write a failure down, if that is possible."""
        failure = Failure(
            exit_code=error.exit_code,
            message=error.message,
            hint=error.hint,
            failed_at=self._now(),
            client=self._client,
        )
        try:
            self._state.save_failure(self._name, failure)
        except DcsError:
            pass  # the failure itself is what the user must read

    def raise_own(self) -> None:
        """Raise what the first half of this ssh has just failed with."""
        failure = self._state.load_failure(self._name)
        if failure is None or failure.client != self._client:
            return
        if 0 <= self._now() - failure.failed_at < _SAME_CLIENT_S:
            error = _error(failure)
            error.was_shown = True
            raise error

    def raise_shared(self) -> None:
        """Raise what another process has failed with while this one waited."""
        failure = self._state.load_failure(self._name)
        if failure is not None and self._is_shared(failure):
            raise _error(failure)

    def is_shared(self) -> bool:
        """Tell whether there is such a failure."""
        failure = self._state.load_failure(self._name)
        return failure is not None and self._is_shared(failure)

    def _is_shared(self, failure: Failure) -> bool:
        kind = _BY_EXIT_CODE.get(failure.exit_code, DcsError)
        # One from the future was written before the clock was set back, whenever that was.
        return issubclass(kind, _SHARED) and self._started_at <= failure.failed_at <= self._now()


def _error(failure: Failure) -> DcsError:
    kind = _BY_EXIT_CODE.get(failure.exit_code, DcsError)
    return kind(clean_text(failure.message, 1000), hint=clean_text(failure.hint, 1000))
