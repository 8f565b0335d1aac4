from __future__ import annotations

import argparse
import json
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy import __version__
from dcs_proxy.app import Options
from dcs_proxy.commands import doctor
from dcs_proxy.doctor.runner import Check, Step, failed, passed
from dcs_proxy.errors import DcsError
from tests.unit.commands.conftest import Commands, Done

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


CHECKS = [
    Check("", True, "fine", seconds=0.0),
    Check("", False, "bad", "mend it", 1.25),
    Check("", None, "not made", seconds=0.0123),
]


@pytest.fixture
def checks(commands: Commands, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three checks, one of each result."""
    commands.state.machines()  # creates the directory of the log
    named = [replace(c, name=name) for c, name in zip(CHECKS, ("one", "two", "three"), strict=True)]
    monkeypatch.setattr(doctor, "steps_for", lambda host: host)
    monkeypatch.setattr(doctor, "run_steps", lambda steps, context, log: iter(named))
    monkeypatch.setenv("LC_ALL", "C.UTF-8")
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(stdout=SimpleNamespace(encoding="utf-8")))


def test_a_person_reads_marks_texts_times_and_hints(commands: Commands, checks: None) -> None:
    assert commands("doctor") == Done(
        1,
        "✓ one             fine\n"
        "✗ two             bad (1.2 s)\n"
        "                  hint: mend it\n"
        "- three           not made (12 ms)\n",
        "",
    )
    log = Path(commands.state.file("log")).read_text()
    assert " doctor failed=two ms=" in log


def test_a_program_reads_the_same(commands: Commands, checks: None) -> None:
    done = commands("doctor", "--json", "dm-foo")
    assert (done.code, done.err) == (1, "")
    assert json.loads(done.out) == {
        "ok": False, "version": __version__,
        "checks": [
            {"name": "one", "status": "ok", "text": "fine", "hint": "", "seconds": 0.0},
            {"name": "two", "status": "failed", "text": "bad", "hint": "mend it", "seconds": 1.25},
            {"name": "three", "status": "skipped", "text": "not made", "hint": "",
             "seconds": 0.012},
        ],
    }  # fmt: skip
    assert " doctor machine=dm-foo failed=two " in Path(commands.state.file("log")).read_text()


def test_what_is_checked_is_what_the_arguments_name(
    commands: Commands, monkeypatch: pytest.MonkeyPatch, checks: None
) -> None:
    found: list[Any] = []
    monkeypatch.setattr(doctor, "run_steps", lambda steps, context, log: found.append(
        (steps, context.host, context.ssh_config, context.is_default_config)) or [])  # fmt: skip
    assert commands("doctor", "--json").out == json.dumps(
        {"ok": True, "version": __version__, "checks": []}, indent=2
    ) + "\n"  # fmt: skip
    commands("doctor", "dm-foo", "--ssh-config", "~/other")
    assert found == [
        (None, None, f"{commands.home}/.ssh/config", True),
        ("dm-foo", "dm-foo", f"{commands.home}/other", False),
    ]
    log = Path(commands.state.file("log")).read_text()
    assert " doctor ms=" in log and " doctor machine=dm-foo ms=" in log


def test_a_bundle_is_written_after_the_checks(
    commands: Commands, checks: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Any] = []
    monkeypatch.setattr(doctor, "write_bundle", lambda path, _, checks: written.append(
        (path, [check.name for check in checks])))  # fmt: skip
    path = str(commands.home / "report.txt")
    done = commands("doctor", "--bundle", path)
    assert done.err == f"dcs-proxy: wrote {path}; read it before you send it\n"
    assert written == [(path, ["one", "two", "three"])]
    # That it would replace a file is said before anything is checked.
    Path(path).write_text("mine")
    done = commands("doctor", "--bundle", path)
    assert (done.code, done.out, len(written)) == (2, "", 1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.0009, ""), (0.001, " (1 ms)"), (0.9994, " (999 ms)"), (1.0, " (1.0 s)"), (61, " (61.0 s)")],
)
def test_how_long_a_check_took_is_told_if_it_took_any_time(seconds: float, text: str) -> None:
    assert doctor._took(seconds) == text


@pytest.mark.parametrize(
    ("variables", "encoding", "is_plain"),
    [
        ({"LANG": "en_GB.UTF-8"}, "utf-8", False),
        ({"LC_CTYPE": "C.utf8", "LANG": "C"}, "UTF-8", False),
        ({"LC_ALL": "C", "LC_CTYPE": "C.utf8", "LANG": "C.utf8"}, "utf-8", True),
        ({"LC_ALL": "", "LC_CTYPE": "C.utf8"}, "utf-8", False),
        ({"LANG": "C.UTF-8"}, "ascii", True),
        ({"LANG": "C.UTF-8"}, None, True),
        ({}, "utf-8", True),
    ],
)
def test_marks_are_plain_where_others_cannot_be_shown(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], encoding: str, is_plain: bool
) -> None:
    monkeypatch.setattr(doctor, "sys", SimpleNamespace(stdout=SimpleNamespace(encoding=encoding)))
    assert doctor._is_plain(variables) is is_plain
    lines = doctor._lines(CHECKS[1], doctor._PLAIN_MARKS)
    assert lines == ["FAIL                 bad (1.2 s)", "                     hint: mend it"]
