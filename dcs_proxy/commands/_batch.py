"""Do the same work for many machines, a few at a time."""

from __future__ import annotations

import contextlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence

from dcs_proxy.console.live_table import LiveTable
from dcs_proxy.errors import ClientGone, DcsError
from dcs_proxy.names import MachineName

AT_ONCE = 8
_TICK_S = 0.2
# How long threads may take to stop: they check every tenth of a second.
_STOP_S = 2.0

# Its arguments: a machine, a function that shows the user a line, and a function that returns
# whether the work must end with ClientGone.  It returns the result in words.
Work = Callable[[MachineName, Callable[[str], None], Callable[[], bool]], str]


class Batch:
    """Runs `work` for each of `names` in `AT_ONCE` threads, and shows the progress in a table.

    A DcsError that `work` raises is the outcome for that machine.
    """

    def __init__(self, names: Sequence[MachineName], work: Work) -> None:
        self.outcomes: dict[MachineName, str | DcsError] = {}
        self._unwritten: DcsError | None = None
        self._stopping = threading.Event()
        self._names = names
        self._work = work
        self._waiting: queue.SimpleQueue[MachineName] = queue.SimpleQueue()
        # What the threads want to show: only the main thread uses the table.
        self._events: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._table = LiveTable(len(names))
        self._threads = [
            threading.Thread(target=self._run_thread, daemon=True)
            for _ in range(min(AT_ONCE, len(names)))
        ]

    def run(self) -> int:
        """Return the exit code of the first of `names` that failed, 0 if none did.

        Raises DcsError, when all work is done, if a result could not be written to stdout.
        If it raises KeyboardInterrupt, all work has ended, and `outcomes` has the results so far.
        """
        for name in self._names:
            self._waiting.put(name)
        try:
            # An interrupt while the table is drawn would leave lines that are never erased, and an
            # interrupt while threads start would leave some running.
            with _interrupt_as_event(self._events):
                for thread in self._threads:
                    thread.start()
                while len(self.outcomes) < len(self._names):
                    self._show_next()
        except KeyboardInterrupt:
            self._stop()
            raise
        finally:
            self._table.clear()
        if self._unwritten is not None:
            raise self._unwritten
        failures = [self.outcomes[name] for name in self._names]
        return next((f.exit_code for f in failures if isinstance(f, DcsError)), 0)

    def _show_next(self) -> None:
        try:
            self._events.get(timeout=_TICK_S)()
        except queue.Empty:
            pass
        if self._events.empty():
            self._table.draw()

    def _stop(self) -> None:
        self._stopping.set()
        end = time.monotonic() + _STOP_S
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        while not self._events.empty():
            self._events.get()()

    def _run_thread(self) -> None:
        while not self._stopping.is_set():
            try:
                name = self._waiting.get_nowait()
            except queue.Empty:
                return
            self._do(name)

    def _do(self, name: MachineName) -> None:
        self._events.put(lambda: self._table.begin(name))
        outcome: str | BaseException
        try:
            outcome = self._work(
                name,
                lambda text: self._events.put(lambda: self._table.tell(name, text)),
                self._stopping.is_set,
            )
        except BaseException as error:  # the main thread raises it again
            outcome = error
        self._events.put(lambda: self._end(name, outcome))

    def _end(self, name: MachineName, outcome: str | BaseException) -> None:
        if isinstance(outcome, ClientGone):
            return  # the work was stopped
        if not isinstance(outcome, str | DcsError):
            raise outcome
        self.outcomes[name] = outcome
        try:
            self._table.end(name, outcome)
        except DcsError as error:  # the other machines are still to be done
            self._unwritten = error


@contextlib.contextmanager
def _interrupt_as_event(events: queue.SimpleQueue[Callable[[], None]]) -> Iterator[None]:
    """Queue Ctrl-C as an event that raises KeyboardInterrupt.

    A second Ctrl-C raises it at once, because the main thread may be blocked in a write.
    """
    before = signal.getsignal(signal.SIGINT)
    if before is not signal.default_int_handler:
        yield  # ignored, as under nohup
        return

    def put(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        events.put(_interrupt)  # SimpleQueue.put() may be called from a signal handler

    signal.signal(signal.SIGINT, put)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _interrupt() -> None:
    raise KeyboardInterrupt
