"""One deadline for everything that a command waits for, and a look at who is waiting.

The clock is monotonic.  Every wait is cut into short turns, so that a client that has gone (ssh
killed, the editor closed) ends the wait within a turn instead of after minutes.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Generic, TypeVar

from dcs_proxy.errors import ClientGone, DeadlineExceeded

T = TypeVar("T")

TURN_S = 0.1


class Deadline:
    """The moment when waiting ends, and the question whether anybody still waits.

    `client_gone` is asked, and `turn` called, about every `TURN_S` seconds; neither may block.
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
        """Return the seconds left, never below zero."""
        return max(0.0, self.at - time.monotonic())

    def check(self) -> None:
        """Raise ClientGone or DeadlineExceeded when there is no more reason to wait."""
        self._turn()
        if self.client_gone():
            raise ClientGone("the program that asked for the connection has gone")
        if not self.remaining():
            raise DeadlineExceeded(
                f"not ready after {self.seconds:g} s",
                hint="try again: what is under way goes on, and the next try takes it up",
            )

    def sleep(self, seconds: float) -> None:
        """Wait that long.  Raises ClientGone or DeadlineExceeded as soon as either is so."""
        end = time.monotonic() + seconds
        self.check()
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, TURN_S, self.remaining()))
            self.check()

    def call(self, function: Callable[[], T], *, within_s: float) -> T:
        """Return what `function` returns, or raise what it raises; TimeoutError after `within_s`.

        It runs in a daemon thread, because a name lookup or a body that drips cannot be
        interrupted otherwise.  When waiting ends first it is left behind and the process, which
        has nothing more to do, ends under it.
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
    def __init__(self, function: Callable[[], T]) -> None:
        self.function = function
        self.done = threading.Event()
        self.value: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        try:
            self.value = self.function()
        except BaseException as error:  # handed to the waiting thread, whatever it is
            self.error = error
        self.done.set()

    def result(self) -> T:
        if self.error is not None:
            raise self.error
        # Without an error there is a value, though T may allow None.
        return self.value  # type: ignore[return-value]
