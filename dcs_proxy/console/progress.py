"""What a person sees while a machine wakes.

On a terminal, one line counts the seconds, and is replaced by the total at the end:

    dcs-proxy: dm-foo: waking up, 12 s

Elsewhere (an editor's output panel, a file) there are plain lines without control characters, one
at once and one every half minute, because a panel without news looks stuck.  With a quiet ssh
nothing is shown.
"""

from __future__ import annotations

import time
from collections.abc import Callable

from dcs_proxy.console.stderr import draw, show
from dcs_proxy.names import MachineName

_EVERY_S = 30


class Progress:
    """Shows the wake of one machine, in place or not; nothing if `is_quiet`.

    `advice` is a line to show first, if the program that runs ssh will not wait that long.

    Call tick() several times a second.
    """

    def __init__(
        self,
        *,
        is_quiet: bool,
        in_place: bool,
        advice: str = "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._advice = advice
        self._is_quiet = is_quiet
        self._in_place = in_place
        self._clock = clock
        self._start = clock()
        self._machine: MachineName | None = None
        self._shown = 0

    def notice(self, text: str) -> None:
        """Show a line that is not an error."""
        if not self._is_quiet:
            show(f"dcs-proxy: {text}")

    def waking(self, machine: MachineName, limit_s: int) -> None:
        """Start to show that the machine is waking, which may take up to `limit_s`."""
        self._machine = machine
        if self._advice:
            self.notice(f"{machine}: {self._advice}")
        if self._in_place:
            self._shown = -1
            self.tick()
        else:
            self.notice(f"{machine}: waking up, at most {limit_s} s")

    def tick(self) -> None:
        """Show how long it has taken so far, if that has changed."""
        seconds = self._seconds()
        step = 1 if self._in_place else _EVERY_S
        if self._machine is None or seconds // step == self._shown // step:
            return
        self._shown = seconds
        text = f"{self._machine}: waking up, {seconds} s"
        if not self._in_place:
            self.notice(text)
        elif not self._is_quiet:
            draw(f"dcs-proxy: {text}")

    def ready(self) -> None:
        """Show that the machine is awake."""
        if self._machine is not None and self._in_place:
            self.notice(f"{self._machine}: ready after {self._seconds()} s")
        self._machine = None

    def _seconds(self) -> int:
        return int(self._clock() - self._start)
