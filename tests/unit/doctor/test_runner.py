from __future__ import annotations

import time
from pathlib import Path

import pytest

from dcs_proxy.doctor.runner import Check, Step, failed, passed, run_steps, skipped
from dcs_proxy.errors import ConfigError
from dcs_proxy.local.log import Log


def test_a_failure_stops_only_what_needs_it(tmp_path: Path) -> None:
    def explains_itself(_: object) -> Check:
        raise ConfigError("it is wrong", hint="mend it")

    steps = [
        Step[object]("a", explains_itself),
        Step[object]("b", lambda _: passed("b is well"), ("a",)),
        Step[object]("c", lambda _: passed("c is well")),
        Step[object]("d", lambda _: failed("d is not", "do it"), ("c",)),
        Step[object]("e", lambda _: passed("e is well"), ("c", "b", "d")),
        Step[object]("f", lambda _: None),
        Step[object]("g", lambda _: passed("g is well"), ("f",)),
        Step[object]("h", lambda _: skipped("h was not tried", "try it")),
        Step[object]("i", lambda _: passed("i is well"), ("h",)),
    ]
    checks = [
        (c.name, c.status, c.text, c.hint)
        for c in run_steps(steps, object(), Log(str(tmp_path / "log")))
    ]
    assert checks == [
        ("a", "failed", "it is wrong", "mend it"),
        ("b", "skipped", "skipped: needs a", ""),
        ("c", "ok", "c is well", ""),
        ("d", "failed", "d is not", "do it"),
        ("e", "skipped", "skipped: needs b", ""),
        ("g", "ok", "g is well", ""),
        ("h", "skipped", "h was not tried", "try it"),
        ("i", "skipped", "skipped: needs h", ""),
    ]


def test_an_unexpected_exception_fails_its_own_check_only(tmp_path: Path) -> None:
    def is_broken(_: object) -> Check:
        raise ZeroDivisionError("dsk-secret")

    steps = [
        Step[object]("a", is_broken),
        Step[object]("b", lambda _: passed("b is well"), ("a",)),
        Step[object]("c", lambda _: passed("c is well")),
    ]
    log = tmp_path / "log"
    checks = list(run_steps(steps, object(), Log(str(log))))
    assert [(check.name, check.status) for check in checks] == [
        ("a", "failed"), ("b", "skipped"), ("c", "ok")
    ]  # fmt: skip
    assert checks[0].text == "internal error (ZeroDivisionError); this is a bug in dcs-proxy"
    assert checks[0].hint == f"report it with the last lines of {log}"
    assert "internal-error kind=ZeroDivisionError" in log.read_text()
    assert "dsk-secret" not in log.read_text() + repr(checks)


def test_each_check_is_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0

    def takes_two_seconds(_: object) -> Check:
        nonlocal now
        now += 2
        return passed("done")

    monkeypatch.setattr(time, "monotonic", lambda: now)
    steps = [Step[object]("a", takes_two_seconds), Step[object]("b", lambda _: passed("at once"))]
    checks = run_steps(steps, object(), Log(str(tmp_path / "log")))
    assert [check.seconds for check in checks] == [2, 0]
