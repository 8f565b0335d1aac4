"""The failure of `prepare` reaches what the same ssh runs next, and no other process."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from dcs_proxy.errors import ConfigError
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.first_half import FirstHalf

ERROR = ConfigError("a wrong word", hint="the right word")


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory(str(tmp_path / "state"))


def test_the_same_ssh_fails_with_the_same_error_and_shows_nothing(state: StateDirectory) -> None:
    FirstHalf(state.path, "12:34").save_failure(ERROR)
    for is_last in (False, False, True):
        with pytest.raises(ConfigError) as caught:
            FirstHalf(state.path, "12:34").check(is_last=is_last)
        assert (caught.value.lines(), caught.value.was_shown) == (ERROR.lines(), True)
    FirstHalf(state.path, "12:34").check(is_last=True)
    assert os.listdir(state.file("sessions")) == []


def test_another_ssh_does_not(state: StateDirectory) -> None:
    FirstHalf(state.path, "12:34").save_failure(ERROR)
    FirstHalf(state.path, "12:35").check(is_last=True)


@pytest.mark.parametrize("seconds", [10, -1])
def test_an_old_failure_does_not_count(
    state: StateDirectory, seconds: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    FirstHalf(state.path, "12:34").save_failure(ERROR)
    now = time.time() + seconds
    monkeypatch.setattr(time, "time", lambda: now)
    FirstHalf(state.path, "12:34").check(is_last=True)


def test_a_damaged_file_does_not_count(state: StateDirectory) -> None:
    Path(state.file("sessions", "12-34.failed")).write_text('{"exit_code": ')
    FirstHalf(state.path, "12:34").check(is_last=True)


def test_a_directory_that_cannot_be_written_hides_no_error(tmp_path: Path) -> None:
    half = FirstHalf(str(tmp_path / "none"), "12:34")
    half.save_failure(ERROR)
    half.check(is_last=True)


@pytest.mark.parametrize(("mode", "reaches"), [(0o700, True), (0o777, False)])
def test_where_the_state_cannot_be_written_the_runtime_directory_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mode: int, reaches: bool
) -> None:
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    runtime.chmod(mode)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    FirstHalf(str(tmp_path / "none"), "12:34").save_failure(ERROR)
    with pytest.raises(ConfigError) if reaches else nullcontext():
        FirstHalf(str(tmp_path / "none"), "12:34").check(is_last=True)
    assert os.listdir(runtime) == []


def test_what_no_second_half_has_read_is_removed_later(state: StateDirectory) -> None:
    FirstHalf(state.path, "12:34").save_failure(ERROR)
    state.collect_garbage(time.time())
    assert os.listdir(state.file("sessions")) == ["12-34.failed"]
    state.collect_garbage(time.time() + 301)
    assert os.listdir(state.file("sessions")) == []
