from __future__ import annotations

import codecs
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.errors import ConfigError, StateError
from dcs_proxy.local.trusted_file import Distrust
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_file import (
    Parts,
    difference,
    edit,
    edit_lock,
    install,
    parse_blocks,
    read,
    remove,
)

TOP, END = "Host dm-*\n    User x\n", "Host *\n"
NEWER = "Host dm-*\n    User y\n"
LINES = st.sampled_from(
    [b"Host a\n", b"  User b\n", b"\n", b"# >>> other >>>\n", b"\r\n", b"\xff\n", b"Host *\n",
     b"# dcs-proxy\n", b" # other >>> dcs-proxy top\n"]
)  # fmt: skip
FILES = st.builds(lambda lines, last: b"".join(lines) + last, st.lists(LINES), st.binary())


def has_mark(text: bytes) -> bool:
    if text.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        return True  # a byte order mark
    return any(line.lstrip(b" \t").startswith((b"# >>> dcs-proxy", b"# <<< dcs-proxy"))
               for line in text.split(b"\n"))  # fmt: skip


@given(FILES)
def test_install_then_remove_gives_the_same_bytes(text: bytes) -> None:
    if has_mark(text):
        return
    installed = install(text, TOP, END)
    assert remove(installed) == text
    assert remove(text) == text


@given(FILES)
def test_installing_twice_changes_nothing_and_newer_blocks_take_the_place(text: bytes) -> None:
    if has_mark(text):
        return
    once = install(text, TOP, END)
    assert install(once, TOP, END) == once
    newer = install(once, NEWER, END)
    assert newer == install(text, NEWER, END)
    assert parse_blocks(newer).top == NEWER.encode()
    assert remove(newer) == text


@given(FILES)
def test_every_line_of_the_users_stands_whole_between_our_blocks(text: bytes) -> None:
    if has_mark(text):
        return
    installed = install(text, TOP, END)
    assert installed.startswith(b"# >>> dcs-proxy top ")
    assert installed.endswith(b"# <<< dcs-proxy end <<<\n")
    own = text if text.endswith(b"\n") or not text else text + b"\n"
    assert b"# <<< dcs-proxy top <<<\n" + own + b"# >>> dcs-proxy end " in installed


@given(FILES, st.binary(), st.binary())
def test_what_the_user_writes_around_the_blocks_stays(
    text: bytes, before: bytes, after: bytes
) -> None:
    before += b"\n"
    if has_mark(text) or has_mark(before) or has_mark(after):
        return
    parts = parse_blocks(before + install(text, TOP, END) + after)
    assert parts.own.startswith(before) and parts.own.endswith(after)
    assert text in parts.own


def test_a_file_that_we_made_goes_though_an_editor_has_left_blank_lines_in_it() -> None:
    text = config_file.install(b"", "top\n", "end\n", created=True)
    assert config_file.remove(b"\n" + text + b" \n\n") is None
    assert config_file.remove(text + b"# mine\n") == b"# mine\n"


def test_a_last_line_without_its_newline_gets_it_once_another_follows() -> None:
    text = config_file.install(b"Host a\n    User b", "top\n", "end\n")
    assert config_file.remove(text) == b"Host a\n    User b"
    assert config_file.remove(text + b"Host c\n") == b"Host a\n    User b\nHost c\n"
    again = config_file.install(text + b"Host c", "top 2\n", "end 2\n")
    assert config_file.remove(again) == b"Host a\n    User b\nHost c"


def test_a_file_that_we_made_goes_when_nothing_else_is_in_it() -> None:
    made = install(b"", TOP, END, created=True)
    assert remove(made) is None
    assert remove(install(made, NEWER, END)) is None
    assert remove(made + b"Host mine\n") == b"Host mine\n"
    assert remove(install(b"", TOP, END)) == b""


INSTALLED = install(b"Host mine\n", TOP, END)
# As a program leaves a block that drops comments.
UNMARKED = b"""Host dm-*
Match originalhost "dm-*,!*#*" exec "exec /bin/sh /home/me/.ssh/dcs-proxy/launcher prepare '%h'"
    ProxyUseFdpass yes
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (INSTALLED.replace(b"User x", b"User me"), "line 1 .* was edited by hand"),
        (INSTALLED.replace(b"# <<< dcs-proxy top <<<\n", b""), "line 1 .* has no last line"),
        (INSTALLED.replace(b"# <<< dcs-proxy end <<<\n", b""), "line 6 .* has no last line"),
        (INSTALLED.partition(b"\n")[2], "line 3 .* has no valid first line"),
        (INSTALLED + INSTALLED.replace(b"User x", b"User me"), "line 9 .* was edited by hand"),
        (b"# mine\n" + UNMARKED, "line 3 .* has lost its # >>> and # <<< lines"),
        (INSTALLED + UNMARKED, "line 10 .* has lost its # >>> and # <<< lines"),
        (b"\xef\xbb\xbf" + INSTALLED, "not plain UTF-8 text"),
        (INSTALLED.decode().encode("utf-16"), "not plain UTF-8 text"),
        (b"# >>> dcs-proxy >>>\n", "line 1 .* has no valid first line"),
        (
            INSTALLED.replace(b"dcs-proxy top ", b"dcs-proxy middle ", 1),
            "line 1 .* valid first",
        ),
    ],
)
def test_a_broken_block_is_refused_with_its_line(text: bytes, said: str) -> None:
    for change in (remove, lambda data: install(data, TOP, END)):
        with pytest.raises(ConfigError, match=said) as caught:
            change(text)
        assert "nothing was changed" in caught.value.message


@given(st.data())
def test_a_block_damaged_anywhere_is_refused_or_unharmed(data: st.DataObject) -> None:
    position = data.draw(st.integers(0, len(INSTALLED) - 1))
    damaged = bytearray(INSTALLED)
    damaged[position] = data.draw(st.integers(0, 255))
    try:
        left = remove(bytes(damaged))
    except ConfigError:
        return
    # A mark that is none any more is the user's text; nothing but our whole blocks is taken.
    assert left is not None
    assert b"Host mine" in left or position in range(*_place(b"Host mine\n"))


def _place(text: bytes) -> tuple[int, int]:
    start = INSTALLED.index(text)
    return start, start + len(text)


def test_editing_keeps_link_mode_and_contents(tmp_path: Path) -> None:
    (tmp_path / "dotfiles").mkdir()
    target = tmp_path / "dotfiles" / "config"
    target.write_bytes(b"Host mine\n")
    target.chmod(0o644)
    link = tmp_path / "config"
    link.symlink_to("dotfiles/config")
    assert edit(str(link), lambda old: install(old or b"", TOP, END))
    assert link.is_symlink() and target.read_bytes() == INSTALLED
    assert target.stat().st_mode & 0o777 == 0o644
    before = target.stat()
    assert not edit(str(link), lambda old: install(old or b"", TOP, END))
    after = target.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert os.listdir(target.parent) == ["config"]


def test_a_new_file_is_private_and_goes_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "config"
    assert edit(str(path), lambda old: install(old or b"", TOP, END, created=old is None))
    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert edit(str(path), lambda old: old and remove(old))
    assert not path.exists()
    assert not edit(str(path), lambda old: old and remove(old))


def test_a_directory_that_cannot_be_made_is_a_state_error() -> None:
    with pytest.raises(StateError, match=r"/proc/none cannot be written"):
        edit("/proc/none/config", lambda _: b"new")


def test_a_file_that_cannot_be_removed_is_a_state_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    path = tmp_path / "config"
    path.write_bytes(install(b"", TOP, END, created=True))
    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(StateError, match="Operation not permitted"):
        edit(str(path), lambda old: old and remove(old))


def test_what_is_no_plain_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(ConfigError, match="is not a regular file"):
            read(str(path))
    (tmp_path / "large").write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    with pytest.raises(ConfigError, match="too large"):
        read(str(tmp_path / "large"))


def test_a_write_that_fails_leaves_the_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"Host mine\n")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match="No space left"):
        edit(str(path), lambda old: install(old or b"", TOP, END))
    assert path.read_bytes() == b"Host mine\n"
    assert os.listdir(tmp_path) == ["config"]


def test_the_lock_waits_and_then_names_the_process_that_has_it(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    with (
        edit_lock(path),
        pytest.raises(StateError, match=rf"another config-ssh \(process {os.getpid()}\)"),
    ):
        edit_lock(path, timeout_s=0.1)
    edit_lock(path, timeout_s=0.0).release()


def test_the_difference_is_a_diff() -> None:
    said = difference(b"Host mine\n", INSTALLED, "config")
    assert "+# <<< dcs-proxy end <<<" in said
    assert not [line for line in said[2:] if line.startswith("-")]
    plain = ["--- config", "+++ config", "@@ -1 +1 @@", "-a", "+b"]
    assert difference(b"a\n", b"b\n", "config") == plain


OWN = b"Host mine\n    User me\n"


@pytest.mark.parametrize(
    "rewrite",
    [
        lambda text: text.replace(b"\n", b"\r\n"),
        lambda text: text.replace(b"    ", b"\t"),
        lambda text: text.replace(b"    ", b"  "),
        lambda text: text.replace(b'"', b""),
        lambda text: b"".join(b"  " + line for line in text.splitlines(True)),
        lambda text: text.replace(b"\n", b"  \n"),
    ],
    ids=["crlf", "tabs", "two-blanks", "quotes", "indented", "blanks-at-the-end"],
)
def test_a_program_that_rewrites_the_file_leaves_our_blocks_ours(
    rewrite: Callable[[bytes], bytes],
) -> None:
    top = 'Match originalhost "dm-*,!* *" exec "exec /p"\n    Include "/a b/*.conf"\n'
    rewritten = rewrite(install(OWN, top, END))
    assert remove(rewritten) == rewrite(OWN)
    again = install(rewritten, top, END)
    parts = parse_blocks(again)
    assert (parts.top, parts.end) == (top.encode(), END.encode())


def test_a_word_changed_in_our_block_is_an_edit() -> None:
    edited = install(OWN, TOP, END).replace(b"User x", b"User z")
    with pytest.raises(ConfigError, match="was edited by hand"):
        remove(edited)


@pytest.mark.parametrize("goes", [False, True])
def test_lines_that_another_program_appends_meanwhile_are_kept(tmp_path: Path, goes: bool) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"Host mine\n")
    if goes:
        edit(str(path), lambda old: install(old or b"", "Host a\n", "Host *\n"))
    number = 0

    def change(old: bytes | None) -> bytes | None:
        nonlocal number
        number += 1
        if number == 1:
            # Another program has read nothing of ours, and appends to the file that it has open.
            with path.open("ab") as file:
                file.write(b"Host theirs\n")
        return remove(old or b"") if goes else install(old or b"", "Host a\n", "Host *\n")

    assert edit(str(path), change)
    assert parse_blocks(path.read_bytes()).own == b"Host mine\nHost theirs\n"
    assert (b"dcs-proxy" in path.read_bytes()) is not goes


def test_a_program_that_is_still_writing_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcs_proxy.openssh.config_file._SETTLE_S", 60)
    path = tmp_path / "config"
    path.write_bytes(b"Host mine\n")
    # It has opened the file before it is replaced, and writes a while after.
    writer = subprocess.Popen(
        [sys.executable, "-c", _APPENDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    goes_on, said = writer.stdin, writer.stdout
    assert goes_on and said and said.readline() == b"open\n"

    def change(old: bytes | None) -> bytes:
        goes_on.close()
        return install(old or b"", "Host a\n", "Host *\n")

    edit(str(path), change)
    assert writer.wait(20) == 0
    said.close()
    assert parse_blocks(path.read_bytes()).own == b"Host mine\nHost theirs\n"


_APPENDER = """
import sys, time
with open(sys.argv[1], "ab") as file:
    print("open", flush=True)
    sys.stdin.read()
    time.sleep(0.2)  # a slow program: the file is replaced long before
    file.write(b"Host theirs\\n")
"""


def test_a_program_that_rewrites_the_file_meanwhile_has_its_way(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"Host mine\nHost old\n")
    is_first = True

    def change(old: bytes | None) -> bytes:
        nonlocal is_first
        if is_first:
            is_first = False
            path.write_bytes(b"Host new\n")
        return install(old or b"", "Host a\n", "Host *\n")

    edit(str(path), change)
    assert parse_blocks(path.read_bytes()).own == b"Host new\n"


def save(path: Path, data: bytes) -> None:
    """Replace a file as an editor does, by another one."""
    other = path.with_name("saved")
    other.write_bytes(data)
    other.rename(path)


@pytest.mark.parametrize("before", [b"Host mine\n", b"", None], ids=["file", "empty", "none"])
@pytest.mark.parametrize(
    "saved", [b"Host mine\nHost theirs\n", b"Host new\n", b"Host quite another one\n", b""]
)
def test_what_an_editor_saves_at_the_last_moment_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, before: bytes | None, saved: bytes
) -> None:
    path = tmp_path / "config"
    if before is not None:
        path.write_bytes(before)
    sync, saves = os.fsync, [saved]

    def sync_then_save(fd: int) -> None:
        sync(fd)
        if saves:  # our file is written, and about to take its place
            save(path, saves.pop())

    monkeypatch.setattr(os, "fsync", sync_then_save)
    edit(str(path), lambda old: install(old or b"", "Host a\n", "Host *\n", created=old is None))
    parts = parse_blocks(path.read_bytes())
    assert (parts.own, parts.top) == (saved, b"Host a\n")
    assert os.listdir(tmp_path) == ["config"]


def test_a_file_that_an_editor_saves_while_it_is_removed_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "config"
    edit(str(path), lambda old: install(old or b"", TOP, END, created=old is None))
    whole, is_first = path.read_bytes(), True

    def change(old: bytes | None) -> bytes | None:
        nonlocal is_first
        if is_first:
            is_first = False
            save(path, whole + b"Host theirs\n")
        return old and remove(old)

    edit(str(path), change)
    assert path.read_bytes() == b"Host theirs\n"
    assert os.listdir(tmp_path) == ["config"]


def test_where_files_cannot_be_exchanged_the_block_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_file, "exchange", lambda *_: False)
    path = tmp_path / "config"
    path.write_bytes(b"Host mine\n")
    edit(str(path), lambda old: install(old or b"", TOP, END))
    assert path.read_bytes() == INSTALLED
    assert os.listdir(tmp_path) == ["config"]


def test_where_files_cannot_be_exchanged_what_is_appended_meanwhile_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config_file, "exchange", lambda *_: False)
    path = tmp_path / "config"
    path.write_bytes(b"Host mine\n")
    added = [b"Host theirs\n"]

    def change(old: bytes | None) -> bytes:
        if added:
            with path.open("ab") as file:
                file.write(added.pop())
        return install(old or b"", TOP, END)

    edit(str(path), change)
    assert parse_blocks(path.read_bytes()).own == b"Host mine\nHost theirs\n"


def test_a_file_whose_last_contents_cannot_be_read_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def swap(one: str, other: str) -> bool:
        os.rename(one, f"{one}.spare")
        os.rename(other, one)
        os.rename(f"{one}.spare", other)
        return True

    def fail(_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(config_file, "exchange", swap)
    monkeypatch.setattr(config_file, "_read_to_the_end", fail)
    path = tmp_path / "config"
    path.write_bytes(b"Host mine\n")
    with pytest.raises(StateError, match="Input/output error"):
        edit(str(path), lambda old: install(old or b"", TOP, END))
    assert path.read_bytes() == b"Host mine\n"
    assert os.listdir(tmp_path) == ["config"]


def test_a_new_file_is_made_where_there_are_no_hard_links(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    path = tmp_path / "config"
    edit(str(path), lambda _: b"new\n")
    assert path.read_bytes() == b"new\n" and os.listdir(tmp_path) == ["config"]


def test_a_new_file_that_cannot_be_written_is_a_state_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StateError, match="No space left"):
        edit(str(tmp_path / "config"), lambda _: b"new\n")
    assert os.listdir(tmp_path) == []


def test_a_file_that_goes_by_itself_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"old\n")
    assert edit(str(path), lambda _: path.unlink(missing_ok=True))
    assert os.listdir(tmp_path) == []


def test_a_file_that_cannot_be_moved_away_is_a_state_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    path = tmp_path / "config"
    path.write_bytes(b"old\n")
    monkeypatch.setattr(os, "rename", refuse)
    with pytest.raises(StateError, match=r"config cannot be written: Operation not permitted"):
        edit(str(path), lambda _: None)


@pytest.mark.parametrize(
    ("error", "turns"), [(OSError(errno.EINVAL, "Invalid argument"), 0), (BlockingIOError(), 100)]
)
def test_a_replaced_file_is_read_at_once_or_after_a_second(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError, turns: int
) -> None:
    """At once on a network file system without leases; later if a program keeps it open."""
    pauses: list[float] = []

    def refuse(*_: object) -> None:
        raise error

    (tmp_path / "config").write_bytes(b"old\n")
    monkeypatch.setattr(config_file.fcntl, "fcntl", refuse)
    monkeypatch.setattr(config_file.time, "monotonic", lambda: sum(pauses))
    monkeypatch.setattr(config_file.time, "sleep", pauses.append)
    with (tmp_path / "config").open("rb") as file:
        assert config_file._read_to_the_end(file) == b"old\n"
    assert abs(len(pauses) - turns) <= 1 and set(pauses) <= {0.01}


@pytest.mark.parametrize(
    ("place", "is_shared", "is_refused"),
    [(None, True, False), ("config", False, False), ("config", True, True), ("", False, True),
     ("", True, True)],
)  # fmt: skip
def test_a_file_that_others_could_exchange_is_not_edited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, place: str | None, is_shared: bool,
    is_refused: bool,
) -> None:  # fmt: skip
    path = tmp_path / "config"
    path.write_bytes(b"old\n")
    distrust = place if place is None else Distrust(str(tmp_path / place), "is theirs", "see whose")
    monkeypatch.setattr(config_file, "find_distrust", lambda _path: distrust)
    monkeypatch.setattr(config_file, "is_shared", lambda directory: is_shared)
    if is_refused:
        with pytest.raises(ConfigError, match="is theirs"):
            edit(str(path), lambda _: b"new\n")
    else:
        assert edit(str(path), lambda _: b"new\n")
    assert path.read_bytes() == (b"old\n" if is_refused else b"new\n")


def test_what_cannot_be_read_or_written_has_a_hint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a config"
    path.write_bytes(b"#" * (4 * 1024 * 1024 + 1))
    for each, said in (
        (path, "too large"), (path / "x", "cannot be read: Not a directory"), (tmp_path, "regular")
    ):  # fmt: skip
        with pytest.raises(ConfigError, match=said) as caught:
            read(str(each))
        assert "--ssh-config" in caught.value.hint

    def fail(*_: object) -> None:
        raise StateError("cannot write") from OSError(errno.EROFS, "Read-only file system")

    path.write_bytes(b"old")
    monkeypatch.setattr(config_file, "write_atomically", fail)
    monkeypatch.setattr(config_file, "_write_in_place", lambda *_: False)
    with pytest.raises(ConfigError, match="cannot write") as caught:
        edit(str(path), lambda _: b"new")
    assert f"--ssh-config '{path}-dcs-proxy'" in caught.value.hint


def test_a_file_that_cannot_be_opened_or_synced_is_not_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    path = tmp_path / "config"
    assert not config_file._write_in_place(str(path), b"new")
    path.write_bytes(b"old")
    assert config_file._write_in_place(str(path), b"new")
    monkeypatch.setattr(os, "fsync", fail)
    assert not config_file._write_in_place(str(path), b"newer")


def test_the_words_about_a_file_are_in_order() -> None:
    text = install(install(b"", TOP, END, created=True) + b"Host c", TOP, END)
    assert b" created no-newline >>> " in text


def test_second_copies_of_our_blocks_are_dropped() -> None:
    top, end = install(OWN, TOP, END).split(OWN)
    for text in (top + top + OWN + end, top + OWN + end + top + end, end + OWN + top + top + end):
        assert install(text, TOP, END) == install(OWN, TOP, END)
        assert remove(text) == OWN
    twice = install(OWN, TOP, END) * 2
    assert remove(twice) == OWN * 2


@pytest.mark.parametrize(
    "line",
    [b"# exec dcs-proxy prepare %h\n", b"Host dm-*\n    ProxyCommand dcs-proxy %h %p\n",
     b"Match exec \"mine prepare %h\"\n"],
)  # fmt: skip
def test_the_users_own_use_of_the_program_is_no_block(line: bytes) -> None:
    assert remove(install(line, TOP, END)) == line


def test_a_replaced_file_keeps_its_owner_and_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "config"
    path.write_bytes(b"old\n")
    path.chmod(0o640)
    written = []
    monkeypatch.setattr(
        config_file, "write_atomically", lambda target, data, *rest: written.append(rest)
    )
    config_file.edit(str(path), lambda _: b"new\n")
    assert written[0][:2] == (0o640, (path.stat().st_uid, path.stat().st_gid))


def test_of_two_copies_of_a_block_the_first_counts_as_it_does_for_ssh() -> None:
    first, second = (config_file.install(b"", f"Host {name}\n", "") for name in ("one", "two"))
    assert config_file.parse_blocks(first + second).top == b"Host one\n"


def test_the_blocks_of_a_file_are_read_through_a_link(tmp_path: Path) -> None:
    file, link = tmp_path / "file", tmp_path / "link"
    link.symlink_to(file)
    assert config_file.read_blocks(str(link)) == Parts(b"", None, None, frozenset())
    file.write_bytes(install(b"Host own\n", "Host dm-a\n", "Host *\n"))
    parts = config_file.read_blocks(str(link))
    assert (parts.own, parts.top, parts.end) == (b"Host own\n", b"Host dm-a\n", b"Host *\n")
    file.write_bytes(b"# >>> dcs-proxy")
    with pytest.raises(ConfigError):
        config_file.read_blocks(str(link))


@pytest.mark.parametrize("mark", [codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE])
def test_a_file_that_ssh_cannot_read_is_refused(mark: bytes) -> None:
    with pytest.raises(ConfigError, match="is not plain UTF-8 text") as caught:
        parse_blocks(mark + b"Host own\n")
    assert "without a byte order mark" in caught.value.hint


@pytest.mark.parametrize("is_above", [True, False])
def test_a_block_without_its_marks_is_found_anywhere(is_above: bool) -> None:
    line = b"Match originalhost dm-* exec \"exec /bin/sh '/s/launcher' prepare '%h'\"\n"
    blocks = install(b"", "Host dm-a\n", "Host *\n")
    with pytest.raises(ConfigError, match="has lost its # >>> and # <<< lines") as caught:
        parse_blocks(line + blocks if is_above else blocks + line)
    assert ">>>" not in caught.value.hint and "first Host dm-* line" in caught.value.hint


@pytest.mark.parametrize(
    ("number", "is_written"),
    [(errno.EBUSY, True), (errno.EROFS, True), (errno.EACCES, True), (errno.EPERM, True),
     (errno.ENOSPC, False)],
)  # fmt: skip
def test_a_file_that_cannot_be_replaced_is_written_in_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, is_written: bool
) -> None:
    def fail(*_: object) -> None:
        raise StateError("cannot write", hint="see why") from OSError(number, os.strerror(number))

    path = tmp_path / "config"
    path.write_bytes(b"the longer old text")
    inode = path.stat().st_ino
    monkeypatch.setattr(config_file, "write_atomically", fail)
    if is_written:
        assert config_file.edit(str(path), lambda old: b"new") is True
    else:
        with pytest.raises(StateError):
            config_file.edit(str(path), lambda old: b"new")
    assert path.read_bytes() == (b"new" if is_written else b"the longer old text")
    assert path.stat().st_ino == inode
