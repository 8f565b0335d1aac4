"""One deadline for everything that a command waits for.

The clock is monotonic.  Every wait is a series of short turns, so that it ends within a turn after
the client has exited (ssh was killed, the editor was closed).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from dcs_proxy.errors import ClientGone, DeadlineExceeded

T = TypeVar("T")

# How often a wait looks whether the client is still there.
TURN_S = 0.1


def check_client(client_gone: Callable[[], bool]) -> None:
    """Raise ClientGone if `client_gone` returns True."""
    if client_gone():
        raise ClientGone("the program that asked for the connection has exited")


class Deadline:
    """The moment `seconds` from now when waiting ends.

    During a wait, `turn` and `client_gone` (whether the client has exited) are called about every
    `TURN_S` seconds.  Neither may block.
    """

    def __init__(
        self,
        seconds: float,
        client_gone: Callable[[], bool] = lambda: False,
        turn: Callable[[], None] = lambda: None,
    ) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds
        self.client_gone = client_gone
        self._turn = turn

    def remaining(self) -> float:
        """Return the seconds left, never less than 0."""
        return max(0.0, self.at - time.monotonic())

    def check(self) -> None:
        """Raise ClientGone or DeadlineExceeded if there is no reason to wait any longer."""
        self._turn()
        check_client(self.client_gone)
        if not self.remaining():
            raise DeadlineExceeded(
                f"timed out after {self.seconds:g} s",
                hint="try again; to see what took so long: dcs-proxy log",
            )

    def sleep(self, seconds: float) -> None:
        """Wait `seconds`.  Raises ClientGone or DeadlineExceeded as soon as either applies."""
        end = time.monotonic() + seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, TURN_S, self.remaining()))
            self.check()

    def call(self, function: Callable[[], T], *, within_s: float) -> T:
        """Return what `function` returns, or raise what it raises.

        Raises TimeoutError after `within_s`, ClientGone or DeadlineExceeded.  The function runs in
        a daemon thread, because a name lookup or a slow response cannot be interrupted otherwise.
        If waiting ends first, the thread is left behind until the process exits.
        """
        outcome = _Outcome(function)
        threading.Thread(target=outcome.run, daemon=True).start()
        end = time.monotonic() + within_s
        while not outcome.done.wait(min(TURN_S, self.remaining())):
            self.check()
            if time.monotonic() >= end:
                raise TimeoutError
        return outcome.result()


class _Outcome(Generic[T]):
    """What a function in another thread has returned or raised, once `done` is set."""

    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.done = threading.Event()
        self.value: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self.function()
        except BaseException as error:  # the waiting thread raises it
            self.error = error
        self.done.set()

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        # Without an error there is a value, which may be None if T allows it.
        return self.value  # type: ignore[return-value]
