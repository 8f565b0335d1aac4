"""The failure of `prepare`, for what the same ssh runs next.

ssh runs its ProxyCommand even if its Match exec has failed, and evaluates the Match exec twice if
the config asks for a second pass.  What runs second fails with the same error at once: it neither
waits again nor shows the error again.
"""

from __future__ import annotations

import contextlib
import os
import time

from dcs_proxy.errors import DcsError, StateError
from dcs_proxy.local.files import read_small, remove_file, write_atomically
from dcs_proxy.session.directory import FAILED
from dcs_proxy.session.last_failure import to_error, to_failure
from dcs_proxy.session.records import parse_failure, render

# ssh goes on at once.  A longer time would do harm where process numbers are used again.
_VALID_S = 10.0


class FirstHalf:
    """What became of `prepare` in the ssh process `client`, as openssh/parent.py names it."""

    def __init__(self, state_directory: str, client: str) -> None:
        name = client.replace(":", "-") + FAILED
        self._path = os.path.join(state_directory, "sessions", name)

    def save_failure(self, error: DcsError) -> None:
        """Write an error that the user has been shown, if that is possible."""
        try:
            write_atomically(self._path, render(to_failure(error, time.time())))
        except StateError:
            pass  # the error itself is what the user must read

    def check(self, *, is_last: bool) -> None:
        """Raise the error of `prepare` again, if it has just failed.

        If nothing runs after this (`is_last`), the file is removed.
        """
        data = read_small(self._path)
        if data is None:
            return
        if is_last:
            with contextlib.suppress(StateError):  # then it expires
                remove_file(self._path)
        failure = parse_failure(data)
        if failure is not None and 0 <= time.time() - failure.failed_at < _VALID_S:
            error = to_error(failure)
            error.was_shown = True
            raise error
