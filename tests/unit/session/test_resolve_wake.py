"""While a machine wakes: polling, the guest, the deadline, and sessions that end."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from dcs_proxy.errors import DeadlineExceeded, SessionFailed
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.session.next_step import Half
from tests.unit.session.fakes import NAME, Fakes, events


def test_each_step_is_in_the_debug_log(fakes: Fakes) -> None:
    path = fakes.state.file("log")
    log = Log(path, "debug")
    fakes.api.statuses = ["wake_in_progress", "ready"]
    fakes.api.clock_ahead_s = 40.0
    fakes.resolve(log=log)
    fakes.resolve(log=log)
    fakes.now = lambda: time.time() + 61
    fakes.resolve(log=log)
    listed = 'agent asked="list identities" reply=12 ms=N'
    assert events(fakes, "step", "lock", "session", "ready", "resume", "clock", "agent") == [
        "step machine=dm-foo step=TakeLock",
        "lock machine=dm-foo held=yes ms=N",
        "step machine=dm-foo step=Create",
        "session machine=dm-foo session=wssh-0 status=wake_in_progress",
        "step machine=dm-foo step=Wait",
        "step machine=dm-foo step=Accept",
        "clock machine=dm-foo ahead_s=40",
        'agent asked="add a certificate identity" reply=6 ms=N',
        'agent asked="remove an identity" reply=6 ms=N',
        "ready machine=dm-foo session=wssh-0 login=wssh-0 seconds=N ms=N",
        "step machine=dm-foo step=Confirm",
        "step machine=dm-foo step=Use",
        "step machine=dm-foo step=AskAgent",
        listed,
        "step machine=dm-foo step=Use",
        "step machine=dm-foo step=TakeLock",
        "lock machine=dm-foo held=yes ms=N",
        "step machine=dm-foo step=AskAgent",
        listed,
        "step machine=dm-foo step=Resume",
        "resume machine=dm-foo session=wssh-0",
        "step machine=dm-foo step=Confirm",
        "clock machine=dm-foo ahead_s=40",
        "step machine=dm-foo step=Use",
    ]
    (said,) = re.findall(r" seconds=(\d+) ms=(\d+)", Path(path).read_text())
    assert 3500 < int(said[0]) <= 3600 and int(said[1]) < 60_000


def test_a_wake_is_polled_and_announced_once(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", "ssh_in_progress", "unheard-of", "ready"]
    record = fakes.resolve()
    assert record.attempt.polled
    assert (fakes.api.count("POST"), fakes.api.count("GET")) == (1, 3)
    assert fakes.notices == ["dm-foo: waking up, at most 300 s"]
    assert fakes.guest_waits == [record.attempt.session_id]


def test_a_guest_that_did_not_answer_is_waited_for_by_the_next_ssh(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", "ready"]
    fakes.guest_waits = [DeadlineExceeded("SSH_TUNNEL_NOT_READY")]
    with pytest.raises(DeadlineExceeded):
        fakes.resolve()
    record = fakes.resolve()
    assert record.ready is not None and not record.ready.bare_key
    assert (len(fakes.api.keys), len(fakes.guest_waits)) == (1, 2)
    fakes.resolve()
    assert len(fakes.guest_waits) == 2


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_is_reported_and_does_no_harm(fakes: Fakes, hours: int) -> None:
    fakes.api.clock_ahead_s = hours * 3600.0
    record = fakes.resolve()
    assert record.ready is not None
    assert abs(record.ready.ends_at - time.time() - fakes.api.life_s) < 60
    how = "behind" if hours > 0 else "ahead of"
    assert fakes.notices == [f"this computer's clock is 60 min {how} the API's: set it"]


@pytest.mark.parametrize(
    ("ahead_s", "told"),
    [(59.0, ""), (60.0, "60 s behind"), (200.0, "3 min behind"), (86400.0 * 365, "365 d behind"),
     (-299.0, ""), (-300.0, "5 min ahead of"), (-7200.0, "2 h ahead of")],
)  # fmt: skip
def test_a_clock_is_reported_from_one_minute_behind_and_five_ahead_on_each_time(
    fakes: Fakes, ahead_s: float, told: str
) -> None:
    fakes.api.clock_ahead_s = ahead_s
    for tries in (1, 2, 3):
        fakes.resolve()
        expected = [f"this computer's clock is {told} the API's: set it"] * tries if told else []
        assert fakes.notices == expected
    assert len(fakes.api.keys) == 1, "one session serves all of them"
    fakes.resolve(half=Half.CONNECT)
    assert len(fakes.notices) == len(expected), "the same ssh does not ask twice"


def test_a_deployment_without_get_repeats_the_post(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", "wake_in_progress", "ready"]
    fakes.api.has_get = False
    record = fakes.resolve()
    posts = [key for method, key in fakes.api.journal if method == "POST"]
    assert len(posts) == 3 and set(posts) == {record.attempt.idempotency_key}
    assert fakes.api.count("GET") == 1


def test_the_deadline_ends_the_wait_and_keeps_the_attempt(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress"]
    for _ in range(2):  # the second process resumes the wake
        with pytest.raises(DeadlineExceeded) as caught:
            fakes.resolve(seconds=0.3)
        assert caught.value.one_line() == (
            "dm-foo: not ready after 0.3 s; "
            "hint: try again: the wake continues, and the next ssh resumes it"
        )
    fakes.api.statuses = ["ready"]
    fakes.resolve()
    assert len(fakes.api.keys) == 1


def test_a_deadline_before_the_wake_has_begun_does_not_speak_of_it(fakes: Fakes) -> None:
    fakes.api.statuses = [DeadlineExceeded("timed out after 30 s")]
    with pytest.raises(DeadlineExceeded, match=r"^timed out after 30 s$"):
        fakes.resolve()


@pytest.mark.parametrize("status", ["closed", "expired", "failed"])
def test_a_session_that_ends_while_waiting_is_a_clear_failure(fakes: Fakes, status: str) -> None:
    fakes.api.statuses = ["wake_in_progress", status]
    with pytest.raises(SessionFailed) as caught:
        fakes.resolve()
    assert caught.value.one_line() == (
        f'dm-foo: the session is {status}: "it broke" (BOOM); '
        "hint: try again; if this persists, look at the machine in the console"
    )
    assert fakes.store.held == {}
    assert fakes.state.load(NAME) is None


def test_a_session_that_failed_without_a_message_is_shown_without_one(fakes: Fakes) -> None:
    fakes.api.changes = {"error_code": "", "error_message": ""}
    fakes.api.statuses = ["failed"]
    with pytest.raises(SessionFailed) as caught:
        fakes.resolve()
    assert caught.value.message == "the session is failed"
    fakes.api.changes = {"error_code": "B" * 100, "error_message": ""}
    with pytest.raises(SessionFailed) as caught:
        fakes.resolve()
    assert caught.value.message == f"the session is failed ({'B' * 57}...)"


def test_a_session_that_the_api_forgets_is_a_clear_failure(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", "wake_in_progress", None]
    with pytest.raises(SessionFailed) as caught:
        fakes.resolve()
    assert caught.value.one_line() == "dm-foo: the API no longer knows the session; hint: try again"


class Naps(Deadline):
    """A deadline that passes no time in sleep, and notes how much it was asked for."""

    def __init__(self) -> None:
        super().__init__(30)
        self.asked: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)


def test_a_wake_is_polled_as_often_as_the_api_asks(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", "ready"]
    fakes.api.changes = {"retry_after_ms": 3000}
    naps, start = Naps(), time.time()
    fakes.now = lambda: start + sum(naps.asked)
    fakes.resolve(deadline=naps)
    (nap,) = naps.asked
    assert 3 <= nap < 4
    assert fakes.log().rstrip().endswith(f" ms={int((start + nap - start) * 1000)}")
