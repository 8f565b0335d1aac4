from __future__ import annotations

import errno
import os
import socket
import stat
import threading
from pathlib import Path

import pytest

from dcs_proxy.errors import ConfigError
from dcs_proxy.local import trusted_file
from dcs_proxy.local.trusted_file import (
    TrustedFile,
    find_distrust,
    find_distrust_of_file,
    judge,
    read_trusted,
    real_path,
)
from tests.support.groups import Groups

STRANGER = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")


def read(path: Path | str, limit: int = 1024) -> bytes | None:
    file = read_trusted(str(path), "the config file", ConfigError, limit=limit)
    return None if file is None else file.data


def refusal(path: Path | str) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        read(path)
    assert caught.value.hint
    return caught.value


def make(path: Path, mode: int = 0o600) -> Path:
    path.write_bytes(b"data")
    path.chmod(mode)
    return path


def test_a_file_of_ours_is_read_and_a_missing_one_is_none(tmp_path: Path) -> None:
    assert read(make(tmp_path / "file")) == b"data"
    assert read(tmp_path / "none") is None
    null = read_trusted("/dev/null", "the key file", ConfigError)
    assert null == TrustedFile(b"", True, "")
    assert find_distrust_of_file("/dev/null") is None


@pytest.mark.parametrize(("mode", "private"), [(0o600, True), (0o640, False), (0o604, False)])
def test_what_others_can_read_is_not_private(tmp_path: Path, mode: int, private: bool) -> None:
    file = read_trusted(str(make(tmp_path / "a b", mode)), "the config file", ConfigError)
    assert file is not None
    assert file.is_private is private
    assert file.hint == f"chmod 600 '{tmp_path}/a b'"


@pytest.mark.parametrize("mode", [0o666, 0o620, 0o602, 0o1666])
def test_a_file_that_others_can_change_is_refused(
    tmp_path: Path, groups: Groups, mode: int
) -> None:
    groups.members = ["another"]
    path = make(tmp_path / "file", mode)
    assert refusal(path).one_line() == (
        f"the config file {path} is writable by other users (mode {mode:04o}); "
        f"hint: chmod go-w {path}"
    )


@pytest.mark.parametrize(
    ("first_groups", "members", "is_read"),
    [
        ({1000: "ours"}, [], True),
        ({1000: "ours"}, ["me"], True),
        ({1000: "ours", 1001: "another"}, [], True),
        ({1000: "ours"}, ["me", "another"], False),
        ({1000: "ours"}, ["another"], False),
        ({1000: "ours", 1001: "ours"}, [], False),
        # The system does not list the members, as many directories of companies do not.
        ({}, [], False),
        ({}, ["me"], False),
        ({1000: "another"}, [], False),
    ],
)
def test_a_file_that_only_the_users_own_group_can_change_is_read(
    tmp_path: Path,
    groups: Groups,
    first_groups: dict[int, str],
    members: list[str],
    is_read: bool,
) -> None:
    groups.first_groups, groups.members = first_groups, members
    (tmp_path / "directory").mkdir()
    (tmp_path / "directory").chmod(0o775)
    path = make(tmp_path / "directory" / "file", 0o664)
    if is_read:
        assert read(path) == b"data"
    else:
        assert "is writable by other users (mode 0664)" in refusal(path).message
        path.chmod(0o644)
        assert "directory is writable by other users (mode 0775)" in refusal(path).message
    path.chmod(0o666)
    assert "is writable by other users (mode 0666)" in refusal(path).message


def test_a_group_without_an_entry_is_nobodys_own(tmp_path: Path, groups: Groups) -> None:
    groups.is_known = False
    assert "is writable by other users" in refusal(make(tmp_path / "file", 0o620)).message


@pytest.mark.parametrize("above", [0, 1])
def test_a_directory_on_the_way_that_others_can_change_is_refused(
    tmp_path: Path, above: int
) -> None:
    path = tmp_path / "a" / "b" / "file"
    path.parent.mkdir(parents=True)
    make(path)
    directory = path.parents[above]
    directory.chmod(0o777)
    assert refusal(path).one_line() == (
        f"the config file {path} is not trusted: {directory} is writable by other users "
        f"(mode 0777); hint: chmod go-w {directory}"
    )
    # In a sticky directory, such as /tmp, only the owner of a file can replace it.
    directory.chmod(0o1777)
    assert read(path) == b"data"


def test_the_way_through_links_is_looked_at_too(tmp_path: Path, groups: Groups) -> None:
    groups.members = ["another"]
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    make(tmp_path / "c" / "file")
    (tmp_path / "b" / "middle").symlink_to("../c/file")
    (tmp_path / "a" / "link").symlink_to(tmp_path / "b" / "middle")
    assert read(tmp_path / "a" / "link") == b"data"
    for name in ("a", "b", "c"):
        (tmp_path / name).chmod(0o770)
        error = refusal(tmp_path / "a" / "link")
        assert f"is not trusted: {tmp_path}/{name} is writable" in error.message
        (tmp_path / name).chmod(0o700)


def test_a_link_to_a_missing_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("none")
    error = refusal(tmp_path / "link")
    assert error.message == f"the config file {tmp_path}/link is a link to a missing file"


def test_a_byte_order_mark_is_not_part_of_the_text(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xef\xbb\xbftext")
    assert read(tmp_path / "file") == b"text"


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    assert "cannot be read: Too many levels of symbolic links" in refusal(tmp_path / "a").message
    assert find_distrust(str(tmp_path / "a")) is None


def test_a_way_through_many_links_is_looked_at_to_its_end(tmp_path: Path) -> None:
    (tmp_path / "end").mkdir()
    make(tmp_path / "end" / "file")
    (tmp_path / "0").symlink_to("end/file")
    for number in range(1, 40):
        (tmp_path / str(number)).symlink_to(str(number - 1))
    assert read(tmp_path / "39") == b"data"
    (tmp_path / "end").chmod(0o777)
    assert f"{tmp_path}/end is writable" in refusal(tmp_path / "39").message


def test_what_is_missing_or_out_of_reach_is_not_distrusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path / "file")
    for path in ("/nowhere/at/all", f"{tmp_path}/file/below/it", f"{tmp_path}/none"):
        assert find_distrust(path) is None
        assert find_distrust_of_file(path) is None

    root = os.stat("/")

    def fail(path: str) -> os.stat_result:
        if path == "/":
            return root
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr(os, "stat", fail)
    assert find_distrust_of_file(str(tmp_path / "file")) is None
    assert refusal("/etc/file").message == (
        "the config file /etc/file cannot be read: Permission denied"
    )


def test_a_file_that_others_can_change_or_reach_is_distrusted(tmp_path: Path) -> None:
    path = make(tmp_path / "file")
    assert find_distrust_of_file(str(path)) is None
    path.chmod(0o666)
    found = find_distrust_of_file(str(path))
    assert found is not None and found.place == str(path)
    assert find_distrust(str(path)) is None, "only the way to it is looked at"
    path.chmod(0o600)
    tmp_path.chmod(0o777)
    found = find_distrust(str(path))
    assert found is not None and found.place == str(tmp_path)
    assert find_distrust_of_file(str(path)) == found


@pytest.mark.parametrize("kind", ["missing", "missing directory", "link to /dev/null"])
@pytest.mark.parametrize("mode", [0o777, 0o1777])
def test_a_file_that_others_could_create_at_once_is_distrusted(
    tmp_path: Path, kind: str, mode: int
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    path = place = shared / "file"
    if kind == "missing directory":
        path = place / "below"
    if kind == "link to /dev/null":
        path.symlink_to(os.devnull)
        os.chown(path, STRANGER if os.geteuid() == 0 else -1, -1, follow_symlinks=False)
    assert kind == "link to /dev/null" or find_distrust_of_file(str(path)) is None
    shared.chmod(mode)
    found = find_distrust_of_file(str(path))
    if mode == 0o1777 and kind == "link to /dev/null" and os.geteuid() != 0:
        assert found is None, "only we can replace our link"
        return
    assert found is not None
    assert found.place == str(shared if mode == 0o777 else place)


@as_root
def test_a_file_of_another_user_is_not_to_be_written_or_removed(tmp_path: Path) -> None:
    path = make(tmp_path / "file")
    os.chown(path, STRANGER, -1)
    found = find_distrust(str(path))
    assert found is not None and found.place == str(path)
    assert found.problem == f"belongs to another user (user id {STRANGER})"


@pytest.mark.parametrize(
    ("mode", "is_distrusted"), [(0o1777, True), (0o1770, True), (0o1700, False), (0o700, False)]
)
def test_a_file_that_others_can_give_a_name_to_is_not_to_be_written(
    tmp_path: Path, groups: Groups, mode: int, is_distrusted: bool
) -> None:
    groups.members = ["another"]
    shared = tmp_path / "shared"
    (shared / "directory" / "below").mkdir(parents=True)
    path, single = make(shared / "file"), make(shared / "single")
    os.link(path, tmp_path / "other name")
    shared.chmod(mode)
    found = find_distrust(str(path))
    assert (found is not None) is is_distrusted
    if found is not None:
        assert (found.place, found.problem) == (
            str(path), "is a hard link, which other users can create there"
        )  # fmt: skip
        assert found.hint == f"look at who else uses it: ls -ld {shared}"
    assert find_distrust(str(single)) is find_distrust(str(shared / "directory")) is None


def test_who_may_connect_to_a_socket_says_nothing_about_who_can_replace_it(tmp_path: Path) -> None:
    path = os.path.relpath(tmp_path / "socket")
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(path)
        os.chmod(path, 0o777)
        assert judge(path, os.lstat(path)) is None


def test_a_file_that_is_replaced_as_it_is_opened_is_judged_as_it_is_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, other = make(tmp_path / "file"), make(tmp_path / "other", 0o644)
    real = os.open

    def open_late(name: str, flags: int) -> int:
        os.replace(other, path)
        return real(name, flags)

    monkeypatch.setattr(os, "open", open_late)
    file = read_trusted(str(path), "the config file", ConfigError)
    assert file is not None and not file.is_private


def test_a_file_is_closed_whatever_it_contains(tmp_path: Path) -> None:
    first = os.open(os.devnull, os.O_RDONLY)
    os.close(first)
    read(make(tmp_path / "file"))
    (tmp_path / "file").chmod(0o666)
    refusal(tmp_path / "file")
    again = os.open(os.devnull, os.O_RDONLY)
    os.close(again)
    assert again == first


def test_a_disk_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(fd: int, size: int) -> bytes:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    path = make(tmp_path / "file")
    monkeypatch.setattr(os, "read", fail)
    assert refusal(path).one_line() == (
        f"the config file {path} cannot be read: Input/output error; "
        f"hint: check its permissions: ls -ld {path}"
    )


def test_a_file_that_is_read_in_pieces_is_read_to_its_limit_and_not_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = os.read
    monkeypatch.setattr(os, "read", lambda fd, size: real(fd, min(size, 512)))
    path = tmp_path / "file"
    path.write_bytes(b"x" * 1024)
    assert read(path) == b"x" * 1024
    path.write_bytes(b"x" * 1025)
    assert refusal(path).message.endswith("is larger than 1 KiB")


def test_the_home_directory_is_the_users_own_affair(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    (home / "sub").mkdir(parents=True)
    make(home / "sub" / "file")
    tmp_path.chmod(0o777)
    home.chmod(0o777)
    monkeypatch.setenv("HOME", str(home))
    for path in (f"{home}/sub/file", f"{home}/./sub/file", f"{tmp_path}//home//sub/file"):
        assert read(path) == b"data"
    (home / "sub").chmod(0o777)
    assert f"{home}/sub is writable" in refusal(home / "sub" / "file").message


@as_root
@pytest.mark.parametrize("what", ["file", "directory", "link"])
def test_what_belongs_to_another_user_is_refused(tmp_path: Path, what: str) -> None:
    directory = tmp_path / "directory"
    directory.mkdir()
    make(directory / "file")
    (tmp_path / "link").symlink_to(directory / "file")
    place = {"file": directory / "file", "directory": directory, "link": tmp_path / "link"}[what]
    os.chown(place, STRANGER, -1, follow_symlinks=False)
    error = refusal(tmp_path / "link")
    if what == "file":
        assert error.message.endswith(f" belongs to another user (user id {STRANGER})")
    else:
        assert f"{place} belongs to another user" in error.message
    assert error.hint.startswith('sudo chown "$(id -un)" ')


@as_root
def test_another_user_reads_what_belongs_to_root_but_not_what_others_can_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path / "file", 0o644)
    monkeypatch.setattr(os, "geteuid", lambda: STRANGER)
    assert read(path) == b"data"
    path.chmod(0o666)
    assert "is writable by other users" in refusal(path).message


@as_root
def test_in_a_user_namespace_without_root_nobody_is_root_except_where_all_can_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    for directory in (tmp_path, shared):
        make(directory / "file")
        (directory / "link").symlink_to(tmp_path / "file")
        (directory / "directory").mkdir()
        make(directory / "directory" / "file")
        for name in ("file", "link", "directory"):
            os.chown(directory / name, STRANGER, -1, follow_symlinks=False)
        make(directory / "ours")
    names = ("file", "link", "directory/file")
    assert "belongs to another user" in refusal(tmp_path / "file").message
    real = os.stat

    def stat_in_namespace(path: str | int, **more: bool) -> os.stat_result:
        status = real(path, **more)
        if path == "/":
            return os.stat_result((*status[:4], STRANGER, *status[5:10]))
        return status

    monkeypatch.setattr(os, "stat", stat_in_namespace)
    for name in names:
        assert read(tmp_path / name) == read(shared / name) == b"data"
    shared.chmod(0o1777)
    for name in names:
        assert read(tmp_path / name) == b"data"
        place = shared / name.partition("/")[0]
        for found in (find_distrust(str(shared / name)), find_distrust_of_file(str(shared / name))):
            assert found is not None
            assert found.place == str(place)
            assert found.problem == f"may belong to any other user (user id {STRANGER})"
        assert "may belong to any other user" in refusal(shared / name).message
    assert read(shared / "ours") == b"data"


def test_only_files_are_read(tmp_path: Path) -> None:
    assert refusal(tmp_path).message == f"the config file {tmp_path} is a directory"
    assert refusal("/dev/zero").message == "the config file /dev/zero is a device"
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(os.path.relpath(tmp_path / "socket"))
        assert refusal(tmp_path / "socket").message.endswith("is a socket")
    make(tmp_path / "file")
    # A service's home may be /dev/null.
    assert read(tmp_path / "file" / "below") is None


def test_a_file_without_end_takes_no_memory(tmp_path: Path) -> None:
    with make(tmp_path / "file").open("r+b") as file:
        file.truncate(1024)
        assert len(read(tmp_path / "file") or b"") == 1024
        file.truncate(1025)
        assert refusal(tmp_path / "file").message.endswith("is larger than 1 KiB")
        file.truncate(1 << 40)
    assert refusal(tmp_path / "file").message.endswith("is larger than 1 KiB")


def test_a_fifo_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path, 0o600)

    def write() -> None:
        with path.open("wb", buffering=0) as file:
            file.write(b"first ")
            file.write(b"second")

    writer = threading.Thread(target=write)
    writer.start()
    assert read(path) == b"first second"
    writer.join()


def test_a_fifo_that_is_silent_or_has_no_end_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trusted_file, "_FIFO_S", 0.05)
    path = tmp_path / "fifo"
    os.mkfifo(path, 0o600)
    assert refusal(path).message == (
        f"the config file {path} is a FIFO, and nothing was written to it within 0.05 s"
    )
    fd = os.open(path, os.O_RDWR)
    try:
        assert "nothing was written" in refusal(path).message
        os.write(fd, b"x" * 2000)
        assert refusal(path).message.endswith("is larger than 1 KiB")
    finally:
        os.close(fd)
    os.chmod(path, 0o622)
    assert "is writable by other users" in refusal(path).message
    assert stat.S_ISFIFO(path.stat().st_mode)


def test_a_link_that_goes_away_while_it_is_followed_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert real_path(f"{tmp_path}/link") == f"{tmp_path}/file"

    def gone(path: str) -> str:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", path)

    monkeypatch.setattr(os, "readlink", gone)
    assert real_path(f"{tmp_path}/x/../link") == f"{tmp_path}/link"
