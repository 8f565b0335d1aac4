from __future__ import annotations

import threading
import time

import pytest

from dcs_proxy.errors import ClientGone, DeadlineExceeded
from dcs_proxy.local.deadline import Deadline


def test_sleep_ends_with_the_deadline() -> None:
    deadline = Deadline(0.05)
    with pytest.raises(DeadlineExceeded, match=r"^timed out after 0\.05 s$"):
        deadline.sleep(60)
    assert deadline.remaining() == 0


def test_sleep_ends_when_the_client_goes() -> None:
    asked = iter([False, False, True])
    with pytest.raises(ClientGone):
        Deadline(60, lambda: next(asked)).sleep(60)


def test_a_call_gives_its_value_or_its_error() -> None:
    assert Deadline(60).call(lambda: 7, within_s=60) == 7
    with pytest.raises(ZeroDivisionError):
        Deadline(60).call(lambda: 1 // 0, within_s=60)


def test_a_call_that_hangs_is_left_behind() -> None:
    never = threading.Event()
    with pytest.raises(TimeoutError):
        Deadline(60).call(never.wait, within_s=0.05)
    with pytest.raises(DeadlineExceeded):
        Deadline(0.05).call(never.wait, within_s=60)
    with pytest.raises(ClientGone):
        Deadline(60, lambda: True).call(never.wait, within_s=60)
    never.set()


class Clock:
    """A clock that goes on only while Deadline sleeps; `naps` are its sleeps."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        self.naps: list[float] = []
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "sleep", self._sleep)

    def _sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.naps.append(seconds)
        self.now += seconds


def test_a_sleep_is_as_long_as_asked_and_takes_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    turns: list[float] = []
    Deadline(60, turn=lambda: turns.append(clock.now)).sleep(0.25)
    assert clock.naps == pytest.approx([0.1, 0.1, 0.05])
    assert turns == pytest.approx([1000, 1000.1, 1000.2, 1000.25])


def test_a_sleep_that_would_outlast_the_deadline_ends_with_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = Clock(monkeypatch)
    deadline = Deadline(0.25)
    with pytest.raises(DeadlineExceeded) as caught:
        deadline.sleep(1)
    assert clock.now == pytest.approx(1000.25)
    assert caught.value.hint == "try again; to see what took so long: dcs-proxy log"


def test_no_sleep_begins_for_a_client_that_has_gone() -> None:
    for seconds in (0.0, 60.0):
        with pytest.raises(ClientGone, match="has exited"):
            # Said of it rather than that the time is over.
            Deadline(0.0, lambda: True).sleep(seconds)


def test_what_a_call_raises_is_raised_whatever_it_is() -> None:
    class Odd(BaseException):
        pass

    def fail() -> None:
        raise Odd

    with pytest.raises(Odd):
        Deadline(60).call(fail, within_s=60)


def test_a_call_that_was_left_behind_does_not_keep_the_process() -> None:
    seen: list[bool] = []
    turns: list[bool] = []
    never = threading.Event()

    def wait() -> None:
        seen.append(threading.current_thread().daemon)
        never.wait(60)

    with pytest.raises(TimeoutError):
        Deadline(60, turn=lambda: turns.append(True)).call(wait, within_s=0)
    never.set()
    assert seen == [True] and turns


def test_a_call_that_is_done_counts_though_the_time_is_over() -> None:
    assert Deadline(60).call(lambda: None, within_s=0) is None
