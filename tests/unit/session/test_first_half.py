"""The failure of `prepare` reaches what the same ssh runs next, and no other process."""

from __future__ import annotations

import os
import time
from contextlib import nullcontext
from pathlib import Path

import pytest

from dcs_proxy.errors import ConfigError, StateError
from dcs_proxy.session import first_half
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


def test_a_file_that_cannot_be_removed_hides_no_error(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(path: str) -> None:
        raise StateError("it cannot be removed")

    FirstHalf(state.path, "12:34").save_failure(ERROR)
    monkeypatch.setattr(first_half, "remove_file", fail)
    with pytest.raises(ConfigError, match="a wrong word"):
        FirstHalf(state.path, "12:34").check(is_last=True)


@pytest.mark.parametrize(("seconds", "counts"), [(0, True), (9.9, True), (10, False)])
def test_a_failure_counts_for_ten_seconds(
    state: StateDirectory, monkeypatch: pytest.MonkeyPatch, seconds: float, counts: bool
) -> None:
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    FirstHalf(state.path, "12:34").save_failure(ERROR)
    monkeypatch.setattr(time, "time", lambda: 1000.0 + seconds)
    with pytest.raises(ConfigError) if counts else nullcontext():
        FirstHalf(state.path, "12:34").check(is_last=True)


@pytest.mark.parametrize("runtime", ["/nowhere", "relative", "", "{file}/below", "{loop}"])
def test_a_runtime_directory_that_is_none_is_not_used(
    state: StateDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runtime: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "loop").symlink_to("loop")
    runtime = runtime.format(file=tmp_path / "file", loop=tmp_path / "loop")
    monkeypatch.setenv("XDG_RUNTIME_DIR", runtime)
    assert FirstHalf(state.path, "12:34")._paths == [state.file("sessions", "12-34.failed")]
