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
from dcs_proxy.local.trusted_file import judge
from dcs_proxy.session.directory import FAILED
from dcs_proxy.session.last_failure import to_error, to_failure
from dcs_proxy.session.records import parse_failure, render

# ssh continues at once.  A longer time would be wrong where process ids are soon reused.
_VALID_S = 10.0


class FirstHalf:
    """What became of `prepare` in the ssh process `client`, as openssh/parent.py names it."""

    def __init__(self, state_directory: str, client: str) -> None:
        name = client.replace(":", "-") + FAILED
        self._paths = [os.path.join(state_directory, "sessions", name)]
        # Where the state directory cannot be written, which may be the error itself.
        if runtime := _runtime_directory():
            self._paths.append(os.path.join(runtime, f"dcs-proxy-{name}"))

    def save_failure(self, error: DcsError) -> None:
        """Write an error that the user has been shown, if that is possible."""
        for path in self._paths:
            with contextlib.suppress(StateError):  # the error itself is what the user must read
                write_atomically(path, render(to_failure(error, time.time())))
                return

    def check(self, *, is_last: bool) -> None:
        """Raise the error of `prepare` again, if it has just failed.

        If nothing runs after this (`is_last`), the file is removed.
        """
        found = [(path, data) for path in self._paths if (data := read_small(path)) is not None]
        if not found:
            return
        path, data = found[0]
        if is_last:
            with contextlib.suppress(StateError):  # then it expires
                remove_file(path)
        failure = parse_failure(data)
        if failure is not None and 0 <= time.time() - failure.failed_at < _VALID_S:
            error = to_error(failure)
            error.was_shown = True
            raise error


def _runtime_directory() -> str:
    """Return the directory for the user's short-lived files, "" if there is none or others can use
    it.
    """
    path = os.environ.get("XDG_RUNTIME_DIR", "")
    try:
        is_private = os.path.isabs(path) and judge(path, os.stat(path)) is None
    except OSError:
        return ""
    return path if is_private else ""
