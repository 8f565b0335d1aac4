from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from dcs_proxy.commands._batch import AT_ONCE, Batch
from dcs_proxy.errors import ApiUnavailable, ClientGone, DcsError, Forbidden
from dcs_proxy.names import MachineName

NAMES = [MachineName(f"dm-m{number:02}") for number in range(30)]


def test_a_few_at_a_time_and_every_one_once(capsys: pytest.CaptureFixture[str]) -> None:
    together = threading.Barrier(AT_ONCE)
    lock = threading.Lock()
    under_way, most, begun = 0, 0, []

    def work(name: MachineName, *_: object) -> str:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
            begun.append(name)
            first = len(begun) <= AT_ONCE
        if first:
            together.wait(30)
            time.sleep(0.02)  # in which a thread too many would begin
        with lock:
            under_way -= 1
        return "done"

    assert Batch(NAMES, work).run() == 0
    assert (sorted(begun), most) == (NAMES, AT_ONCE)
    out, errors = capsys.readouterr()
    assert (sorted(out.splitlines()), errors) == ([f"{name}: done" for name in NAMES], "")


def test_all_work_is_done_although_no_result_can_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def put(*_: str) -> None:
        raise DcsError("cannot write", hint="free some space")

    monkeypatch.setattr("dcs_proxy.console.live_table.put", put)
    batch = Batch(NAMES, lambda *_: "done")
    with pytest.raises(DcsError, match="cannot write"):
        batch.run()
    assert batch.outcomes == dict.fromkeys(NAMES, "done")


def test_the_exit_code_is_that_of_the_first_failure_in_order(
    capsys: pytest.CaptureFixture[str],
) -> None:
    later_is_done = threading.Event()

    def work(name: MachineName, notice: Callable[[str], None], _: object) -> str:
        if name == NAMES[20]:
            later_is_done.set()
            raise Forbidden("no", machine=name)
        if name == NAMES[3]:
            assert later_is_done.wait(30)
            notice(f"{name}: so far so good")
            raise ApiUnavailable("down", hint="wait", machine=name)
        return "done"

    many = Batch(NAMES, work)
    assert many.run() == ApiUnavailable.exit_code
    assert len(many.outcomes) == len(NAMES)
    errors = capsys.readouterr().err.splitlines()
    assert errors == [
        "dcs-proxy: dm-m20: no",
        "dcs-proxy: dm-m03: so far so good",
        "dcs-proxy: dm-m03: down",
        "dcs-proxy: hint: wait",
    ]


def test_a_fault_of_our_own_is_not_one_machines_failure() -> None:
    def work(name: MachineName, *_: object) -> str:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        Batch(NAMES[:1], work).run()


def work_until_told(name: MachineName, _: object, is_stopping: Callable[[], bool]) -> str:
    while not is_stopping():
        time.sleep(0.01)
    raise ClientGone("told to stop")


def test_what_is_done_before_all_has_stopped_is_shown_and_counted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcs_proxy.commands._batch._STOP_S", 60)

    def work(name: MachineName, _: object, is_stopping: Callable[[], bool]) -> str:
        while not is_stopping():
            time.sleep(0.01)
        return "done"

    many = Batch(NAMES[:1], work)
    (thread,) = many._threads
    start = thread.start

    def start_interrupted() -> None:
        start()
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(thread, "start", start_interrupted)
    with pytest.raises(KeyboardInterrupt):
        many.run()
    assert many.outcomes == {NAMES[0]: "done"}
    assert capsys.readouterr().out == f"{NAMES[0]}: done\n"


def test_after_ctrl_c_all_threads_together_have_two_seconds_to_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, waits = 100.0, list[float]()

    class Stuck(threading.Thread):
        def join(self, timeout: float | None = None) -> None:
            nonlocal now
            assert timeout is not None
            waits.append(timeout)
            now += timeout + 0.5

    many = Batch(NAMES[:3], lambda *_: "done")
    many._threads = [Stuck() for _ in range(3)]
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr("dcs_proxy.commands._batch.time", clock)
    many._stop()
    assert waits == [2.0, 0.0, 0.0]


def test_ctrl_c_is_ignored_if_it_was_ignored_before() -> None:
    """As ``nohup`` and the background jobs of a script do."""
    handlers: list[object] = []

    def work(*_: object) -> str:
        handlers.append(signal.getsignal(signal.SIGINT))
        return "done"

    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        assert Batch(NAMES[:1], work).run() == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert handlers == [signal.SIG_IGN]


def test_work_that_does_not_stop_does_not_keep_the_program_running() -> None:
    assert all(thread.daemon for thread in Batch(NAMES, lambda *_: "done")._threads)


def test_a_second_ctrl_c_does_not_wait_for_what_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def write(text: str) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("it went on")

    monkeypatch.setattr("dcs_proxy.console.stderr._write", write)
    many = Batch(NAMES[:2], work_until_told)
    many._table._in_place = True
    with pytest.raises(KeyboardInterrupt):
        many.run()


def test_ctrl_c_in_the_middle_of_drawing_leaves_nothing_on_the_screen(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written: list[str] = []

    def write(text: str) -> None:
        written.append(text)
        if len(written) == 1:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr("dcs_proxy.console.stderr._write", write)
    many = Batch(NAMES[:2], work_until_told)
    many._table._in_place = True
    with pytest.raises(KeyboardInterrupt):
        many.run()
    *_, drawn, taken_away = written
    assert taken_away == f"\r\x1b[{drawn.count(chr(10))}A\x1b[J"
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
