"""A simulated process: a thread that stops wherever another process could run in between."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dcs_proxy.session.next_step import Half
from dcs_proxy.session.records import Record


@dataclass(frozen=True)
class Ask:
    """Stopped before a request to the API."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Mapping[str, str]


@dataclass(frozen=True)
class AskAgent:
    """Stopped before a request to the agent."""

    request: bytes


@dataclass(frozen=True)
class Sleep:
    """Stopped for some time."""

    seconds: float


@dataclass(frozen=True)
class AwaitGuest:
    """Stopped until the guest lets a login in."""


@dataclass(frozen=True)
class Write:
    """Stopped before a change of the state directory."""


Point = Ask | AskAgent | Sleep | AwaitGuest | Write


class Killed(BaseException):
    """The end of a killed process; nothing of ours handles it.

    What `with` and `finally` release then is what the kernel would: descriptors, and their locks.
    """


class Process:
    """Runs `work` in a thread, but only while :meth:`go` waits for it; one process at a time.

    `at` is where it has stopped, None before the first :meth:`go` and once it has ended, with a
    `record` or an `error`.  `started_at` is by the model's clock; `half` as `resolve` has it.
    """

    def __init__(
        self,
        client: str,
        started_at: float,
        work: Callable[[Process], Record],
        *,
        half: Half = Half.PREPARE,
    ) -> None:
        self.client = client
        self.started_at = started_at
        self.half = half
        self.at: Point | None = None
        self.record: Record | None = None
        self.error: BaseException | None = None
        self._work = work
        self._answer: Any = None
        self._may_run = threading.Semaphore(0)
        self._has_stopped = threading.Semaphore(0)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def go(self, answer: Any) -> None:
        """Let it run to its next stop, with `answer`, which it raises if it is an exception."""
        assert self._thread.is_alive(), "it has ended"
        self._answer = answer
        self._may_run.release()
        self._has_stopped.acquire()
        if self.at is None:
            self._thread.join()

    def stop(self, point: Point) -> Any:
        """Wait, in the process's own thread, until it may continue; return the answer."""
        self.at = point
        self._has_stopped.release()
        self._may_run.acquire()
        if isinstance(self._answer, BaseException):
            raise self._answer
        return self._answer

    def _run(self) -> None:
        self._may_run.acquire()
        try:
            self.record = self._work(self)
        except BaseException as error:  # the model judges it
            self.error = error
        finally:
            self.at = None
            self._has_stopped.release()
