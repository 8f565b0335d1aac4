from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pytest

from dcs_proxy.app import Options
from dcs_proxy.commands import doctor
from dcs_proxy.doctor.runner import Check, Step, failed, passed
from dcs_proxy.errors import DcsError

SECRET = "dsk-very-secret"


@pytest.mark.parametrize("json", [False, True])
def test_a_secret_is_masked_in_texts_and_hints(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    json: bool,
) -> None:
    monkeypatch.setenv("DEDALUS_API_KEY", SECRET)
    steps = [
        Step("one", lambda _: passed(f"found {SECRET}")),
        Step("two", lambda _: failed(f"bad {SECRET}", f"replace {SECRET}")),
    ]
    monkeypatch.setattr(doctor, "steps_for", lambda host: steps)
    arguments = argparse.Namespace(bundle=None, ssh_config=None, host=None, json=json)
    assert doctor.run(arguments, Options(str(tmp_path))) == 1
    shown = capsys.readouterr().out
    for text in ("found [masked]", "bad [masked]", "replace [masked]"):
        assert text in shown
    assert SECRET not in shown


def test_a_closed_standard_output_is_told_as_by_other_commands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(doctor, "steps_for", lambda host: [Step("one", lambda _: passed("fine"))])
    arguments = argparse.Namespace(bundle=None, ssh_config=None, host=None, json=False)
    with pytest.raises(DcsError, match="cannot write to standard output"):
        doctor.run(arguments, Options(str(tmp_path)))


def test_only_a_check_that_failed_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = argparse.Namespace(bundle=None, ssh_config=None, host=None, json=False)
    for ok, status in ((True, 0), (None, 0), (False, 1)):
        monkeypatch.setattr(
            doctor, "steps_for", lambda host, ok=ok: [Step("one", lambda _: Check("", ok, "x"))]
        )
        assert doctor.run(arguments, Options(str(tmp_path))) == status
