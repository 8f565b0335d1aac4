from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import shlex
import stat
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from dcs_proxy.errors import StateError
from dcs_proxy.local import files
from dcs_proxy.local.files import (
    cannot_write,
    check_private_directory,
    exchange,
    make_directories,
    make_private_directory,
    read_small,
    remove_file,
    write_atomically,
)


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    with path.open() as reader:
        write_atomically(str(path), b"new")
        assert reader.read() == "old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    write_atomically(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"new"


def test_what_a_killed_process_left_behind_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / f".file.{os.getpid()}.tmp").write_text("half")
    write_atomically(str(tmp_path / "file"), b"new")
    assert os.listdir(tmp_path) == ["file"]


def test_threads_may_write_the_same_file_at_the_same_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "file")
    replace, both_written = os.replace, threading.Barrier(2, timeout=60)

    def replace_together(old: str, new: str) -> None:
        both_written.wait()
        replace(old, new)

    monkeypatch.setattr(os, "replace", replace_together)
    with ThreadPoolExecutor(2) as threads:
        writes = [threads.submit(write_atomically, path, data) for data in (b"1", b"2")]
        for write in writes:
            write.result()
    assert Path(path).read_bytes() in (b"1", b"2")
    assert os.listdir(tmp_path) == ["file"]


def test_mode_and_owner_are_set_before_the_file_is_seen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Only root can give a file away, so what the system is asked is recorded.
    owners: list[tuple[int, int]] = []
    monkeypatch.setattr(os, "fchown", lambda _fd, *owner: owners.append(owner))
    write_atomically(str(tmp_path / "file"), b"new", 0o664, (1234, 5678))
    assert owners == [(1234, 5678)]
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o664


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(StateError, match="cannot be written"):
        write_atomically(str(tmp_path / "file"), b"new")
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(StateError, match="No such file"):
        write_atomically(str(tmp_path / "none" / "file"), b"new")


def test_only_plain_files_of_reasonable_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"12345")
    assert read_small(str(tmp_path / "fifo")) is None
    assert read_small(str(tmp_path)) is None
    assert read_small(str(tmp_path / "none")) is None
    assert read_small(str(tmp_path / "file"), 5) == b"12345"
    assert read_small(str(tmp_path / "file"), 4) is None


def test_a_file_that_others_can_change_counts_as_missing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    (tmp_path / "file").chmod(0o646)
    assert read_small(str(tmp_path / "file")) is None
    assert read_small(str(tmp_path / "file"), of_others=True) == b"12345"


def test_a_directory_is_made_with_its_parents_for_us_alone(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b"
    make_private_directory(str(path))
    make_private_directory(str(path))
    assert [p.stat().st_mode & 0o777 for p in (path, path.parent)] == [0o700, 0o700]


@pytest.mark.parametrize("mode", [0o770, 0o702, 0o777])
def test_a_directory_that_others_can_change_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "a"
    path.mkdir()
    path.chmod(mode)
    with pytest.raises(StateError, match="is writable by other users") as caught:
        make_private_directory(str(path))
    assert caught.value.hint == f"chmod 700 {shlex.quote(str(path))}"


def test_a_directory_that_others_can_replace_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o777)
    with pytest.raises(StateError) as caught:
        make_private_directory(str(tmp_path / "a"))
    assert caught.value.one_line() == (
        f"the state directory {tmp_path}/a is not trusted: {tmp_path} is writable by other users"
        f" (mode 0777); hint: chmod go-w {tmp_path}"
    )


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_every_directory_has_its_mode_from_the_first_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, umask: int
) -> None:
    made: list[int] = []
    mkdir = os.mkdir

    def watch(path: str, mode: int) -> None:
        mkdir(path, mode)
        made.append(os.stat(path).st_mode & 0o777)

    monkeypatch.setattr(os, "mkdir", watch)
    before = os.umask(umask)
    try:
        make_private_directory(str(tmp_path / "a" / "b" / "c"))
    finally:
        os.umask(before)
    assert made == [0o700] * 3


def test_a_link_to_a_missing_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("none")
    with pytest.raises(StateError, match="link is a link to a missing directory"):
        make_private_directory(str(tmp_path / "link"))


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_file(str(tmp_path / "none"))
    with pytest.raises(StateError):
        remove_file(str(tmp_path))


@pytest.mark.parametrize("works", [True, False])
def test_on_macos_the_disk_itself_is_flushed_if_it_can_be(
    works: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []

    def control(_fd: int, operation: int) -> None:
        assert operation == 51
        if not works:
            raise OSError(errno.ENOTSUP, "not supported")
        done.append("full")

    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", control)
    monkeypatch.setattr(os, "fsync", lambda _fd: done.append("fsync"))
    write_atomically(str(tmp_path / "file"), b"text")
    assert done == ["full" if works else "fsync"]


def test_the_bytes_are_on_the_disk_before_the_name_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    for name in ("fsync", "replace"):
        monkeypatch.setattr(os, name, lambda *_, name=name: done.append(name))
    write_atomically(str(tmp_path / "file"), b"new")
    assert done == ["fsync", "replace"]


@pytest.mark.parametrize("leftover", [False, True])
def test_a_file_that_is_being_written_is_private_and_no_link(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leftover: bool
) -> None:
    other = tmp_path / "other"
    other.write_text("kept")
    if leftover:
        (tmp_path / f".file.{threading.get_native_id()}.tmp").symlink_to(other)
    modes = []
    chmod = os.fchmod

    def fchmod(fd: int, mode: int) -> None:
        modes.append(os.fstat(fd).st_mode & 0o777)
        chmod(fd, mode)

    monkeypatch.setattr(os, "fchmod", fchmod)
    before = os.umask(0)
    try:
        write_atomically(str(tmp_path / "file"), b"data")
    finally:
        os.umask(before)
    assert modes == [0o600]
    assert other.read_text() == "kept" and (tmp_path / "file").read_bytes() == b"data"


@pytest.mark.parametrize(
    ("number", "hint"),
    [
        (errno.ENOSPC, "free some space on its disk"),
        (errno.EDQUOT, "has reached your quota"),
        (errno.EFBIG, "ulimit -f"),
        (errno.EROFS, "set DCS_PROXY_HOME"),
        (errno.EACCES, "fix its permissions"),
    ],
)
def test_what_to_do_depends_on_why_a_file_cannot_be_written(number: int, hint: str) -> None:
    error = cannot_write("/config.toml", OSError(number, os.strerror(number)))
    assert hint in error.hint
    # The config files and other files that may be on a full disk are not in the state directory.
    assert ("DCS_PROXY_HOME" in error.hint) is (number in (errno.EROFS, errno.EACCES))


def is_not_written(path: object, reason: str) -> tuple[str, str]:
    hint = "fix its permissions, or set DCS_PROXY_HOME to another directory"
    return f"{path} cannot be written: {reason}", hint


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (lambda path: write_atomically(path, b""), "Not a directory"),
        (remove_file, "Not a directory"),
        (make_directories, "Not a directory"),
        (check_private_directory, "Not a directory"),
    ],
)
def test_what_cannot_be_written_is_named_with_the_reason(
    tmp_path: Path, act: Callable[[str], object], reason: str
) -> None:
    (tmp_path / "file").touch()
    path = str(tmp_path / "file" / "below")
    with pytest.raises(StateError) as caught:
        act(path)
    assert (caught.value.message, caught.value.hint) == is_not_written(path, reason)


def test_a_file_in_place_of_a_directory_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state"
    path.touch()
    with pytest.raises(StateError) as caught:
        make_private_directory(str(path))
    assert (caught.value.message, caught.value.hint) == (
        f"{path} is not a directory", "move it away"
    )  # fmt: skip


def test_a_directory_of_another_user_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: os.getuid() + 1)
    with pytest.raises(StateError) as caught:
        check_private_directory(str(tmp_path))
    assert (caught.value.message, caught.value.hint) == (
        f"the state directory {tmp_path} belongs to another user",
        "set DCS_PROXY_HOME to a directory of your own",
    )


def test_others_may_enter_a_directory_and_read_in_it(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    check_private_directory(str(tmp_path))


@pytest.mark.parametrize(
    ("user", "owner", "mode", "is_refused"),
    [
        (0, 1000, 0o700, True),
        (0, 1000, 0o1777, False),  # /tmp
        (0, 0, 0o700, False),
        (1000, 1000, 0o700, False),
        (1, 1000, 0o700, False),
    ],
)
def test_root_makes_no_directory_in_a_users_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    user: int, owner: int, mode: int, is_refused: bool,
) -> None:  # fmt: skip
    status = os.stat_result((stat.S_IFDIR | mode, 1, 1, 1, owner, 0, 0, 0, 0, 0))
    monkeypatch.setattr(files.os, "stat", lambda path, **_: status)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    if not is_refused:
        files._refuse_as_root("/home/me")
        return
    with pytest.raises(StateError) as caught:
        files._refuse_as_root("/home/me")
    assert caught.value.message == (
        "/home/me belongs to user id 1000, which could not use what root creates there"
    )
    assert caught.value.hint == "run it as that user, without sudo; for root itself: sudo -H"


def test_the_owner_of_each_directory_matters_in_which_one_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    monkeypatch.setattr(files, "_refuse_as_root", looked_at.append)
    for _ in range(2):
        files.make_directories(str(tmp_path / "a" / "b"))
    assert looked_at == [str(tmp_path), str(tmp_path / "a")]


def test_a_file_may_have_the_longest_name_that_there_is(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 255)
    write_atomically(str(path), b"data")
    assert path.read_bytes() == b"data"


def test_a_missing_target_is_named_with_the_links_removal(tmp_path: Path) -> None:
    link = tmp_path / "a link"
    link.symlink_to(tmp_path / "missing")
    with pytest.raises(StateError) as caught:
        make_private_directory(str(link))
    assert caught.value.message == f"{link} is a link to a missing directory"
    assert caught.value.hint == f"create that directory, or remove the link: rm '{link}'"


@pytest.mark.parametrize(("size", "is_read"), [(10, True), (11, False), (5000, False)])
def test_a_file_is_read_up_to_the_limit(tmp_path: Path, size: int, is_read: bool) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"x" * size)
    assert (read_small(str(path), 10) is not None) is is_read


def test_two_files_change_places(tmp_path: Path) -> None:
    one, other = tmp_path / "one \udcff", tmp_path / "other"
    one.write_text("1")
    other.write_text("2")
    assert exchange(str(one), str(other))
    assert (one.read_text(), other.read_text()) == ("2", "1")
    other.unlink()
    with pytest.raises(FileNotFoundError, match="No such file or directory"):
        exchange(str(one), str(other))
    assert one.read_text() == "2"


class Library:
    """A C library that has one function only, which fails with `number`."""

    def __init__(self, name: str, number: int) -> None:
        self.number, self.calls = number, list[tuple[object, ...]]()
        if name:
            setattr(self, name, self.call)

    def call(self, *words: object) -> int:
        self.calls.append(words)
        if self.number:
            ctypes.set_errno(self.number)
        return -1 if self.number else 0


@pytest.mark.parametrize(
    ("name", "number", "is_done"),
    [
        ("renameat2", 0, True),
        ("renameat2", errno.ENOSYS, False),
        ("renameat2", errno.EINVAL, False),
        ("renamex_np", 0, True),
        ("renamex_np", errno.ENOTSUP, False),
        ("", 0, False),
    ],
)
def test_where_files_cannot_change_places_that_is_told(
    monkeypatch: pytest.MonkeyPatch, name: str, number: int, is_done: bool
) -> None:
    library = Library(name, number)
    # What failed before says nothing.
    ctypes.set_errno(errno.EPERM)
    monkeypatch.setattr(ctypes, "CDLL", lambda _name, *, use_errno: use_errno and library)
    assert exchange("/a", "/b") is is_done
    words = {
        # Linux: AT_FDCWD and RENAME_EXCHANGE.  macOS: RENAME_SWAP.
        "renameat2": [(-100, b"/a", -100, b"/b", 2)], "renamex_np": [(b"/a", b"/b", 2)],
    }  # fmt: skip
    assert library.calls == words.get(name, [])


def test_the_bytes_are_in_the_file_before_it_is_synced_and_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    fsync = os.fsync

    def sync(fd: int) -> None:
        sizes.append(os.fstat(fd).st_size)
        fsync(fd)

    monkeypatch.setattr(os, "fsync", sync)
    write_atomically(str(tmp_path / "file"), b"data", put=lambda new, _: sizes.append(-1))
    assert sizes == [4, -1]


def test_a_new_file_that_somebody_has_removed_does_not_hide_the_error(tmp_path: Path) -> None:
    def put(new: str, target: str) -> None:
        os.unlink(new)
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(StateError, match="cannot be written: No space left on device"):
        write_atomically(str(tmp_path / "file"), b"data", put=put)


def test_a_small_file_has_at_most_256_kib(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(256 * 1024))
    assert read_small(str(tmp_path / "file")) == bytes(256 * 1024)
    (tmp_path / "file").write_bytes(bytes(256 * 1024 + 1))
    assert read_small(str(tmp_path / "file")) is None
    (tmp_path / "file").write_bytes(b"abc")
    assert [read_small(str(tmp_path / "file"), limit) for limit in (2, 3)] == [None, b"abc"]


def test_what_cannot_be_opened_counts_as_missing(tmp_path: Path) -> None:
    (tmp_path / "file").touch(0o600)
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "fifo", 0o600)
    before = os.listdir("/dev/fd")
    for path in ("none", "file/below", "loop", "fifo", ".", "x" * 300):
        assert read_small(str(tmp_path / path)) is None
    assert os.listdir("/dev/fd") == before
