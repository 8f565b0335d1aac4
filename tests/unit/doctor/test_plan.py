"""Which checks are left out after a failure, so that its cause is reported once."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.doctor.plan import COMPUTER, MACHINE, steps_for
from dcs_proxy.doctor.runner import Check, failed, passed, run_steps
from dcs_proxy.local.log import Log


def results(failing: str, host: str | None, log: Path) -> dict[str, str]:
    """Return the result of each check, if only the check `failing` finds a problem."""

    def run(name: str) -> Check:
        return failed("broken", "mend it") if name == failing else passed("fine")

    steps = [replace(step, run=lambda _, name=step.name: run(name)) for step in steps_for(host)]
    subject: Any = object()
    return {check.name: check.status for check in run_steps(steps, subject, Log(str(log)))}


@pytest.mark.parametrize(
    ("failing", "skipped"),
    [
        ("python", ""),
        ("ssh", "options machine-options login"),
        ("shell", "options machine-options login"),
        ("settings", "key api access clock agent machine session gateway machine-options login"),
        ("key", "access session gateway machine-options login"),
        ("api", "access clock session gateway machine-options login"),
        ("access", "session gateway machine-options login"),
        ("clock", ""),
        ("state", "agent block options session gateway machine-options login"),
        ("agent", "session gateway machine-options login"),
        ("ssh-config", "block options machine-options login"),
        ("block", "options machine-options login"),
        ("options", "machine-options login"),
        ("vscode", ""),
        ("ansible", ""),
        ("machine", "session gateway machine-options login"),
        ("session", "gateway machine-options login"),
        ("machine-options", "login"),
        ("gateway", "login"),
        ("login", ""),
    ],
)
def test_only_the_checks_that_need_a_failed_one_are_skipped(
    tmp_path: Path, failing: str, skipped: str
) -> None:
    expected = dict.fromkeys(results("", "dm-foo", tmp_path), "ok")
    expected |= {failing: "failed"} | dict.fromkeys(skipped.split(), "skipped")
    assert results(failing, "dm-foo", tmp_path) == expected


def test_a_machine_is_checked_only_if_one_is_named(tmp_path: Path) -> None:
    computer = [step.name for step in COMPUTER]
    assert [*results("", None, tmp_path)] == computer
    assert [*results("", "dm-foo", tmp_path)] == computer + [step.name for step in MACHINE]
