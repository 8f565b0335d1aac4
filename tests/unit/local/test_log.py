from __future__ import annotations

import os
import posix
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.errors import StateError
from dcs_proxy.local import log as module
from dcs_proxy.local.log import LIMIT, Log
from dcs_proxy.local.log_reader import follow_log, is_about, read_log
from dcs_proxy.names import MachineName

LINE = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z \[\d+/\d+\] [a-z-]+( [a-z_]+=.+)*")
# A process that writes numbered lines into a log that is soon full; a file that has been renamed
# keeps a name of its own, so that nothing that was written is ever gone.
WRITER = """
import os, sys, time
from dcs_proxy.local import log
log.LIMIT = 3000
rename = os.rename
os.rename = lambda old, new: rename(old, f"{new}.{os.getpid()}.{time.monotonic_ns()}")
written = log.Log(sys.argv[1])
sys.stdin.read()
for number in range(500):
    written.event("line", number=f"{os.getpid()}-{number}")
"""


def test_an_event_is_one_line_with_time_process_and_parent(tmp_path: Path) -> None:
    path = tmp_path / "log"
    Log(str(path)).event("ready", machine="dm-foo", session=None, ok=True, what='a "b" c', ms=7)
    (line,) = path.read_text().splitlines()
    assert LINE.fullmatch(line)
    where = f"[{os.getpid()}/{os.getppid()}]"
    assert line.endswith(f"Z {where} ready machine=dm-foo ok=yes what=\"a 'b' c\" ms=7")
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("reader", [True, False], ids=["read", "unread"])
def test_a_fifo_in_the_place_of_the_log_is_not_written_to(tmp_path: Path, reader: bool) -> None:
    path = tmp_path / "log"
    os.mkfifo(path)
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK) if reader else -1
    Log(str(path)).event("ready", machine="dm-foo")
    if reader:
        assert os.read(fd, 100) == b""
        os.close(fd)


def test_another_file_by_the_logs_name_is_not_written_to(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("mine\n")
    os.link(mine, tmp_path / "hard")
    (tmp_path / "soft").symlink_to(mine)
    for name in ("hard", "soft"):
        Log(str(tmp_path / name)).event("ready", machine="dm-foo")
    assert mine.read_text() == "mine\n"


def test_the_log_of_another_user_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.touch(0o666)
    other = path.stat().st_uid + 1
    monkeypatch.setattr(posix, "geteuid", lambda: other)
    Log(str(path)).event("ready", machine="dm-foo")
    assert path.read_text() == ""


@given(st.lists(st.text(), max_size=3))
def test_whatever_values_hold_an_event_stays_one_line(values: list[str]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "log"
        Log(str(path)).event("event", **{f"key{n}": text for n, text in enumerate(values)})
        text = path.read_text()
    assert text.endswith("\n")
    assert all(character.isprintable() for character in text[:-1])


def test_the_users_word_decides_how_much_is_written(tmp_path: Path) -> None:
    for verbosity, expected in (("off", []), ("", ["a"]), ("debug", ["a", "b"]), ("xyz", ["a"])):
        path = tmp_path / (verbosity or "log")
        log = Log(str(path), verbosity)
        log.event("a")
        log.debug("b")
        assert [line.split()[2] for line in read_log(str(path))] == expected


def test_what_cannot_be_written_stops_nobody(tmp_path: Path) -> None:
    Log(str(tmp_path / "none" / "log")).event("a")
    (tmp_path / "log").symlink_to(tmp_path / "elsewhere")
    Log(str(tmp_path / "log")).event("a")
    assert not (tmp_path / "elsewhere").exists()


def test_values_are_words_or_quoted_and_cut(tmp_path: Path) -> None:
    log = Log(str(tmp_path / "log"), "debug")
    log.debug("a", yes=True, no=False, one="x", quote='a"b', none="", gone=None)
    log.event("b", long="y" * 3000, words="z z" * 1000)
    first, second = (line.split("] ", 1)[1] for line in read_log(str(tmp_path / "log")))
    assert first == 'a yes=yes no=no one=x quote="a\'b" none=""'
    assert second == f'b long={"y" * 1997}... words="{("z z" * 1000)[:1997]}..."'


def test_a_duration_is_in_milliseconds() -> None:
    assert 2000 <= module.milliseconds_since(time.monotonic() - 2) < 60_000
    assert isinstance(module.milliseconds_since(), int)


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_a_log_that_cannot_be_read_is_an_error(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "log"
    if kind == "link":
        (tmp_path / "other").write_text("of another program\n")
        path.symlink_to(tmp_path / "other")
    else:
        path.mkdir()
    with pytest.raises(StateError) as caught:
        list(read_log(str(path)))
    assert caught.value.message.startswith(f"{path} cannot be read: ")
    assert caught.value.hint == "check its owner and mode: ls -l"


def test_a_traceback_holds_places_and_no_values(tmp_path: Path) -> None:
    try:
        int("dsk-secret")
    except ValueError as error:
        Log(str(tmp_path / "log")).traceback(error)
    text = (tmp_path / "log").read_text()
    assert "internal-error kind=ValueError" in text and "test_log.py" in text
    assert "dsk-secret" not in text


def test_a_full_log_is_kept_once_and_a_new_one_begun(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * (LIMIT - 100))
    log = Log(str(path))
    log.event("a")
    assert path.exists() and LIMIT == 1024 * 1024
    log.event("last", text="x" * 100)
    assert not path.exists()
    log.event("first")
    assert (tmp_path / "log.1").stat().st_size > LIMIT
    module._rotate(str(path))  # by a process that had seen the old file full
    assert [line.split()[2] for line in read_log(str(path))][1:] == ["last", "first"]
    assert (tmp_path / "log.1").stat().st_size > LIMIT


def test_a_rotation_that_another_process_has_done_is_left_at_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "log"
    path.write_bytes(b"x" * (LIMIT + 1))

    def overtaken(_fd: int) -> bool:
        path.replace(tmp_path / "log.1")
        path.write_text("fresh\n")
        return True

    monkeypatch.setattr(module, "flock", overtaken)
    module._rotate(str(path))
    assert path.read_text() == "fresh\n"


def test_many_writers_lose_no_line_and_rename_no_fresh_file(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WRITER, str(tmp_path / "log")]
    writers = [subprocess.Popen(command, stdin=subprocess.PIPE) for _ in range(6)]
    for writer in writers:
        assert writer.stdin
        writer.stdin.close()
    assert [writer.wait(60) for writer in writers] == [0] * 6
    files = list(tmp_path.iterdir())
    assert len(files) > 20
    assert all(file.stat().st_size > 3000 for file in files if file.name != "log")
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert all(LINE.fullmatch(line) for line in lines)
    expected = {f"{writer.pid}-{number}" for writer in writers for number in range(500)}
    assert len(lines) == len(expected)
    assert {line.rpartition("number=")[2] for line in lines} == expected


def test_reading_gives_both_files_in_their_order(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("1\n2\n")
    (tmp_path / "log").write_text("3\nunfinished")
    assert list(read_log(str(tmp_path / "log"))) == ["1", "2", "3"]
    assert list(read_log(str(tmp_path / "none"))) == []


def test_the_unfinished_line_of_one_file_is_not_joined_to_the_next_file(tmp_path: Path) -> None:
    (tmp_path / "log.1").write_text("1\nunfinished")
    (tmp_path / "log").write_text("2\n")
    assert list(read_log(str(tmp_path / "log"))) == ["1", "2"]


def test_following_goes_on_across_one_rotation_and_across_two(tmp_path: Path) -> None:
    path, before = tmp_path / "log", tmp_path / "log.1"
    path.write_text("1\n")
    late = path.open("a")

    def rotate(*lines: str) -> None:
        path.replace(before)
        path.write_text("".join(lines))

    def write_late() -> None:
        late.write("2\n")
        late.close()

    steps = iter([
        lambda: rotate("3\n"),  # the end of the first file was reached
        write_late,  # the rotation was noticed, and another process still wrote to the old file
        lambda: (rotate("4\n"), rotate("5\n")),
        lambda: None,
        lambda: None,
        lambda: path.open("a").write("6\n"),
    ])  # fmt: skip
    followed = follow_log(str(path), pause=lambda _: next(steps)())
    assert [next(followed) for _ in range(6)] == ["1", "2", "3", "4", "5", "6"]


def test_following_begins_before_there_is_a_log(tmp_path: Path) -> None:
    path = tmp_path / "log"
    followed = follow_log(str(path), pause=lambda _: path.write_text("1\n"))
    assert next(followed) == "1"


def test_a_line_is_about_the_machine_that_it_names() -> None:
    line = "2026-01-01T00:00:00.000Z [1/2] ready machine=dm-foo session=wssh-1"
    assert is_about(line, {MachineName("dm-foo"), MachineName("dm-x")})
    assert not is_about(line, {MachineName("dm-fo")})
    assert not is_about("2026-01-01T00:00:00.000Z [1/2] doctor", {MachineName("dm-foo")})


def test_a_line_that_is_longer_than_one_read_is_one_line(tmp_path: Path) -> None:
    lines = ["a" * 70_000, "b", "c" * 140_000]
    (tmp_path / "log").write_text("".join(f"{line}\n" for line in lines))
    assert list(read_log(str(tmp_path / "log"))) == lines
