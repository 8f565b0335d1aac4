"""Why the last try for a machine failed, told to whoever need not find out again."""

from __future__ import annotations

from collections.abc import Callable

from dcs_proxy.errors import (
    ApiUnavailable,
    DcsError,
    DeadlineExceeded,
    MachineNotFound,
    NotWoken,
    SessionFailed,
    clean_text,
)
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import Failure, StateDirectory

# ssh runs ProxyCommand right after prepare has failed: it need not fail once more, slowly.
_SAME_CLIENT_S = 5.0
# Many ssh that have waited for one answer come to their second halves one after the other.
_ANSWER_S = 30.0
# LastFailure that say nothing about the process that met them.
_SHARED = (SessionFailed, DeadlineExceeded, ApiUnavailable, MachineNotFound)
_BY_EXIT_CODE = {kind.exit_code: kind for kind in DcsError.__subclasses__()}


class LastFailure:
    """One machine's last failure, as the ssh process `client` sees it.

    `takes_answers` says that a person's answer to somebody else's question counts here too;
    `now` gives unix time.
    """

    def __init__(
        self,
        name: MachineName,
        state: StateDirectory,
        client: str,
        now: Callable[[], float],
        *,
        takes_answers: bool,
    ) -> None:
        self._name = name
        self._state = state
        self._client = client
        self._now = now
        self._takes_answers = takes_answers
        self._started_at = now()

    def save(self, error: DcsError) -> None:
        """Write a failure down, if that is possible."""
        failure = Failure(
            exit_code=error.exit_code,
            message=error.message,
            hint=error.hint,
            failed_at=self._now(),
            client=self._client,
            was_answered=isinstance(error, NotWoken) and error.was_answered,
        )
        try:
            self._state.save_failure(self._name, failure)
        except DcsError:
            pass  # the failure itself is what the user must read

    def raise_own(self, *, is_second: bool) -> None:
        """Raise what this ssh has failed with before.

        In its first half, which may run twice, only a person's answer is not asked for again.
        """
        failure = self._state.load_failure(self._name)
        if failure is None:
            return
        age = self._now() - failure.failed_at
        is_own = failure.client == self._client
        if failure.was_answered and self._takes_answers:
            applies = 0 <= age < _ANSWER_S and (is_own or is_second)
        else:
            applies = 0 <= age < _SAME_CLIENT_S and is_own and is_second
        if applies:
            error = _error(failure)
            error.was_shown = is_second
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
        counts = issubclass(kind, _SHARED) or (failure.was_answered and self._takes_answers)
        # One from the future was written before the clock was set back, whenever that was.
        return counts and self._started_at <= failure.failed_at <= self._now()


def _error(failure: Failure) -> DcsError:
    kind = _BY_EXIT_CODE.get(failure.exit_code, DcsError)
    return kind(clean_text(failure.message, 1000), hint=clean_text(failure.hint, 1000))
