"""The failure of `prepare`, saved for the commands that the same ssh runs next.

ssh runs its ProxyCommand even if its Match exec has failed, and evaluates the Match exec twice if
the config asks for a second pass.  The later command fails at once with the same error: it neither
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

# ssh runs the next command at once, and after a longer time another process may have the same id.
_VALID_S = 10.0


class FirstHalf:
    """The result of `prepare` in the ssh process `client` (an id from parent.client_id())."""

    def __init__(self, state_directory: str, client: str) -> None:
        name = client.replace(":", "-") + FAILED
        self._paths = [os.path.join(state_directory, "sessions", name)]
        # The error may be that the state directory cannot be written.
        if runtime := _runtime_directory():
            self._paths.append(os.path.join(runtime, f"dcs-proxy-{name}"))

    def save_failure(self, error: DcsError) -> None:
        """Write an error that the user has already seen, if that is possible."""
        for path in self._paths:
            with contextlib.suppress(StateError):  # it must not hide the first error
                write_atomically(path, render(to_failure(error, time.time())))
                return

    def check(self, *, is_last: bool) -> None:
        """Raise the error of `prepare` again, if it has just failed.

        `is_last` says that ssh runs nothing after this, so that the file can be removed.
        """
        found = [(path, data) for path in self._paths if (data := read_small(path)) is not None]
        if not found:
            return
        path, data = found[0]
        if is_last:
            with contextlib.suppress(StateError):  # it expires soon anyway
                remove_file(path)
        failure = parse_failure(data)
        if failure is not None and 0 <= time.time() - failure.failed_at < _VALID_S:
            error = to_error(failure)
            error.was_shown = True
            raise error


def _runtime_directory() -> str:
    """Return the directory in XDG_RUNTIME_DIR, "" if there is none or others can use it."""
    path = os.environ.get("XDG_RUNTIME_DIR", "")
    try:
        is_private = os.path.isabs(path) and judge(path, os.stat(path)) is None
    except OSError:
        return ""
    return path if is_private else ""
