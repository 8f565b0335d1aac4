from __future__ import annotations

import threading

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
