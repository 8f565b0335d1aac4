from __future__ import annotations

import os
from pathlib import Path

import pytest

from dcs_proxy.errors import StateError
from dcs_proxy.local.files import make_private_directory, read_small, remove_file, write_whole


def test_a_file_is_replaced_whole_and_private(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    path.chmod(0o644)
    with path.open() as reader:
        write_whole(str(path), b"new")
        assert reader.read() == "old"
    assert path.read_bytes() == b"new"
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == ["file"]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere" / "file")
    write_whole(str(tmp_path / "link"), b"new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "elsewhere" / "file").read_bytes() == b"new"


def test_what_a_killed_process_left_behind_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / f".file.{os.getpid()}.tmp").write_text("half")
    write_whole(str(tmp_path / "file"), b"new")
    assert os.listdir(tmp_path) == ["file"]


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(StateError, match="cannot be written"):
        write_whole(str(tmp_path / "file"), b"new")
    assert os.listdir(tmp_path) == ["file"]
    with pytest.raises(StateError, match="No such file"):
        write_whole(str(tmp_path / "none" / "file"), b"new")


def test_only_plain_files_of_reasonable_size_are_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "file").write_bytes(b"12345")
    assert read_small(str(tmp_path / "fifo")) is None
    assert read_small(str(tmp_path)) is None
    assert read_small(str(tmp_path / "none")) is None
    assert read_small(str(tmp_path / "file"), 5) == b"12345"
    assert read_small(str(tmp_path / "file"), 4) is None


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
    with pytest.raises(StateError, match="can be changed by others") as caught:
        make_private_directory(str(path))
    assert caught.value.hint == f"chmod 700 '{path}'"


def test_removing_what_is_not_there_is_no_error(tmp_path: Path) -> None:
    remove_file(str(tmp_path / "none"))
    with pytest.raises(StateError):
        remove_file(str(tmp_path))
