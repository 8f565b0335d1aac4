"""Several processes at once for one machine: one works, the others wait for what it finds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from dcs_proxy.errors import ClientGone, DcsError, DeadlineExceeded, SessionFailed
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.agent import Agent
from tests.unit.session.fakes import NAME, Fakes, events


def test_a_process_that_waits_for_another_shows_the_wake(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress", ClientGone("gone")]
    with pytest.raises(ClientGone):
        fakes.resolve()
    fakes.notices.clear()
    with fakes.state.lock(NAME, Deadline(30)) as is_held, pytest.raises(DeadlineExceeded):
        assert is_held
        fakes.resolve(seconds=0.3, log=Log(fakes.state.file("log"), "debug"))
    assert fakes.notices == ["dm-foo: waking up, at most 300 s"]
    assert events(fakes, "lock") == [], "it looks again and again at a lock that it does not get"


def test_the_wait_for_another_process_has_a_deadline(fakes: Fakes) -> None:
    with fakes.state.lock(NAME, Deadline(30)) as is_held:
        assert is_held
        with pytest.raises(DeadlineExceeded):
            fakes.resolve(seconds=0.2)


def test_twenty_at_once_make_one_post(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress"] * 3 + ["ready"]
    results = at_once(20, lambda number: fakes.resolve())
    assert len({str(result) for result in results}) == 1
    assert fakes.api.count("POST") == 1


def test_a_lost_identity_says_nothing_about_the_session_that_replaced_it(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    fakes.resolve()
    fakes.store.held.clear()
    lock = StateDirectory.lock

    def overtaken(state: StateDirectory, *arguments: Any) -> Any:
        monkeypatch.setattr(StateDirectory, "lock", lock)
        fakes.resolve()  # another process has taken the lock first
        return lock(state, *arguments)

    monkeypatch.setattr(StateDirectory, "lock", overtaken)
    assert fakes.resolve().identity in fakes.store.held
    assert fakes.api.count("POST") == 2


def test_no_wake_is_shown_while_waiting_for_a_machine_that_runs(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = Agent.add_certificate

    def add_slowly(*args: Any, **kwargs: Any) -> bool:
        time.sleep(0.3)  # long enough for the others to look at what is written down
        return add(*args, **kwargs)

    monkeypatch.setattr(Agent, "add_certificate", add_slowly)
    at_once(5, lambda number: fakes.resolve())
    assert fakes.notices == []


def test_twenty_at_once_share_one_failure(fakes: Fakes) -> None:
    fakes.api.statuses = ["wake_in_progress"] * 3 + ["failed"]
    results = at_once(20, lambda number: fakes.resolve())
    assert all(isinstance(result, SessionFailed) for result in results)
    assert fakes.api.count("POST") == 1


def at_once(count: int, work: Callable[[int], Record]) -> list[Record | DcsError]:
    results: list[Record | DcsError] = []
    barrier = threading.Barrier(count)

    def run(number: int) -> None:
        barrier.wait()
        try:
            results.append(work(number))
        except DcsError as error:
            results.append(error)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results
