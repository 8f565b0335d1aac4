"""While a machine wakes: polling, the guest, the deadline, and sessions that end."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from dcs_proxy.errors import DeadlineExceeded, SessionFailed
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from tests.unit.session.fakes import NAME, Stage, events


def test_each_step_is_in_the_debug_log(stage: Stage) -> None:
    path = stage.state.file("log")
    log = Log(path, "debug")
    stage.plane.statuses = ["wake_in_progress", "ready"]
    stage.plane.clock_ahead_s = 400.0
    stage.resolve(log=log)
    stage.resolve(log=log, client="2:2")
    stage.now = lambda: time.time() + 61
    stage.resolve(log=log, client="3:3")
    listed = 'agent asked="list identities" reply=12 ms=N'
    assert events(stage, "step", "lock", "session", "ready", "resume", "clock", "agent") == [
        "step machine=dm-foo step=TakeLock",
        "lock machine=dm-foo held=yes ms=N",
        "step machine=dm-foo step=Create",
        "session machine=dm-foo session=wssh-0 status=wake_in_progress",
        "step machine=dm-foo step=Wait",
        "step machine=dm-foo step=Accept",
        "clock machine=dm-foo ahead_s=400",
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
        "step machine=dm-foo step=Use",
    ]
    (said,) = re.findall(r" seconds=(\d+) ms=(\d+)", Path(path).read_text())
    assert 3500 < int(said[0]) <= 3600 and int(said[1]) < 60_000


def test_a_wake_is_polled_and_announced_once(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", "ssh_in_progress", "unheard-of", "ready"]
    record = stage.resolve()
    assert record.attempt.polled
    assert (stage.plane.count("POST"), stage.plane.count("GET")) == (1, 3)
    assert stage.notices == ["dm-foo: waking up, at most 300 s"]
    assert stage.knocks == [record.attempt.session_id]


def test_a_guest_that_did_not_answer_is_waited_for_by_the_next_ssh(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", "ready"]
    stage.knocks = [DeadlineExceeded("SSH_TUNNEL_NOT_READY")]
    with pytest.raises(DeadlineExceeded):
        stage.resolve()
    record = stage.resolve(client="2:2")
    assert record.ready is not None and not record.ready.bare_key
    assert (len(stage.plane.keys), len(stage.knocks)) == (1, 2)
    stage.resolve(client="3:3")
    assert len(stage.knocks) == 2


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_wrong_clock_is_reported_and_does_no_harm(stage: Stage, hours: int) -> None:
    stage.plane.clock_ahead_s = hours * 3600.0
    record = stage.resolve()
    assert record.ready is not None
    assert abs(record.ready.ends_at - time.time() - stage.plane.life_s) < 60
    how = "behind" if hours > 0 else "ahead of"
    assert stage.notices == [f"this computer's clock is 60 min {how} the API's: set it"]


@pytest.mark.parametrize(
    ("ahead_s", "told"), [(-299.0, []), (299.0, []), (300.0, ["behind"]), (-300.0, ["ahead of"])]
)
def test_a_clock_is_reported_from_five_minutes_on(
    stage: Stage, ahead_s: float, told: list[str]
) -> None:
    stage.plane.clock_ahead_s = ahead_s
    stage.resolve()
    assert stage.notices == [f"this computer's clock is 5 min {how} the API's: set it"
                             for how in told]  # fmt: skip


def test_a_deployment_without_get_repeats_the_post(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", "wake_in_progress", "ready"]
    stage.plane.has_get = False
    record = stage.resolve()
    posts = [key for method, key in stage.plane.journal if method == "POST"]
    assert len(posts) == 3 and set(posts) == {record.attempt.idempotency_key}
    assert stage.plane.count("GET") == 1


def test_the_deadline_ends_the_wait_and_keeps_the_attempt(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress"]
    with pytest.raises(DeadlineExceeded) as caught:
        stage.resolve(seconds=0.3)
    assert caught.value.one_line() == (
        "dm-foo: not ready after 0.3 s; "
        "hint: try again: the wake continues, and the next ssh resumes it"
    )
    stage.plane.statuses = ["ready"]
    stage.resolve(client="2:2")
    assert len(stage.plane.keys) == 1


def test_a_deadline_before_the_wake_has_begun_does_not_speak_of_it(stage: Stage) -> None:
    stage.plane.statuses = [DeadlineExceeded("timed out after 30 s")]
    with pytest.raises(DeadlineExceeded, match=r"^timed out after 30 s$"):
        stage.resolve()


@pytest.mark.parametrize("status", ["closed", "expired", "failed"])
def test_a_session_that_ends_while_waiting_is_a_clear_failure(stage: Stage, status: str) -> None:
    stage.plane.statuses = ["wake_in_progress", status]
    with pytest.raises(SessionFailed) as caught:
        stage.resolve()
    assert caught.value.one_line() == (
        f'dm-foo: the session is {status}: "it broke" (BOOM); '
        "hint: try again; if it fails again, look at the machine in the console"
    )
    assert stage.store.held == {}
    assert stage.state.load(NAME) is None


def test_a_session_that_failed_without_a_message_is_shown_without_one(stage: Stage) -> None:
    stage.plane.changes = {"error_code": "", "error_message": ""}
    stage.plane.statuses = ["failed"]
    with pytest.raises(SessionFailed) as caught:
        stage.resolve()
    assert caught.value.message == "the session is failed"
    stage.plane.changes = {"error_code": "B" * 100, "error_message": ""}
    with pytest.raises(SessionFailed) as caught:
        stage.resolve(client="2:2")
    assert caught.value.message == f"the session is failed ({'B' * 59}…)"


def test_a_session_that_the_api_forgets_is_a_clear_failure(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", "wake_in_progress", None]
    with pytest.raises(SessionFailed) as caught:
        stage.resolve()
    assert caught.value.one_line() == "dm-foo: the API no longer knows the session; hint: try again"


class Naps(Deadline):
    """A deadline that passes no time in sleep, and notes how much it was asked for."""

    def __init__(self) -> None:
        super().__init__(30)
        self.asked: list[float] = []

    def sleep(self, seconds: float) -> None:
        self.asked.append(seconds)


def test_a_wake_is_polled_as_often_as_the_api_asks(stage: Stage) -> None:
    stage.plane.statuses = ["wake_in_progress", "ready"]
    stage.plane.changes = {"retry_after_ms": 3000}
    naps, start = Naps(), time.time()
    stage.now = lambda: start + sum(naps.asked)
    stage.resolve(deadline=naps)
    (nap,) = naps.asked
    assert 3 <= nap < 4
    assert stage.log().rstrip().endswith(f" ms={int((start + nap - start) * 1000)}")
