"""The user's ssh config file: install, find and remove our two blocks, and change nothing else.

The file may contain anything, so it is handled as bytes.  A block is

    # >>> dcs-proxy top DIGEST >>> written by dcs-proxy config-ssh, do not edit
    ...
    # <<< dcs-proxy top <<<

DIGEST shows whether the block was edited.  It ignores blanks, line ends and quotes, which other
programs change when they rewrite the file.  Words after it describe the file before our first
edit: ``created`` (it did not exist), ``no-newline`` (its last line had no newline).
"""

from __future__ import annotations

import codecs
import difflib
import errno
import fcntl
import hashlib
import os
import re
import shlex
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from dcs_proxy.errors import ConfigError, StateError
from dcs_proxy.local.files import (
    cannot_write,
    exchange,
    make_directories,
    remove_file,
    write_atomically,
)
from dcs_proxy.local.lock import FileLock, wait_for_lock
from dcs_proxy.local.trusted_file import distrusted, find_distrust, is_shared, real_path

_BEGIN = re.compile(
    rb"[ \t]*# >>> dcs-proxy (top|end) ([0-9a-f]{16})((?: [a-z-]+)*) >>> [^\n]*\n", re.MULTILINE
)
_ANY_MARK = re.compile(rb"^[ \t]*# (?:>>>|<<<) dcs-proxy\b[^\n]*\n?", re.MULTILINE)
# The line of every block that runs our launcher or, in older blocks, the program itself.
_OURS = re.compile(
    rb"^[ \t]*Match [^\n]*\bexec [^\n]*(?:/launcher|dcs[-_]proxy)[^\n]* prepare '?%h", re.MULTILINE
)
_DELETE = (
    "move your own lines out of it, delete it (from the >>> line to the <<< line), and run "
    "dcs-proxy config-ssh again"
)
DEFAULT_PATH = "~/.ssh/config"
_NOTE = "written by dcs-proxy config-ssh, which also rewrites and removes it"
# Errors of a file that cannot be replaced: its directory is read-only or another user's, or the
# file is a mount point.
_IRREPLACEABLE = (errno.EBUSY, errno.EROFS, errno.EACCES, errno.EPERM)
_MAX_FILE = 4 * 1024 * 1024
_FILE_HINT = "name another file with --ssh-config, or see what this one is: ls -lL"
# More than config-ssh waits for the list of machines.
_LOCK_LIMIT_S = 120.0
# How long another program that has the file open may take to finish writing to it.
_SETTLE_S = 1.0
_SETTLE_TURN_S = 0.01


@dataclass(frozen=True)
class Parts:
    """The parts of a config file: the user's own bytes, and the bodies of our blocks.

    `words` are the words after DIGEST in the blocks' first lines.
    """

    own: bytes
    top: bytes | None
    end: bytes | None
    words: frozenset[str]


def install(text: bytes, top: str, end: str, *, created: bool = False) -> bytes:
    """Return `text` with our blocks at its top and end, and without older ones.

    `created` means that the file did not exist.  Raises ConfigError as :func:`parse_blocks`.
    """
    parts = parse_blocks(text)
    own = parts.own
    words = {"created"} if created or "created" in parts.words else set()
    if own and not own.endswith(b"\n"):
        own += b"\n"
        words.add("no-newline")
    return _block("top", top, words & {"created"}) + own + _block("end", end, words)


def remove(text: bytes) -> bytes | None:
    """Return `text` without our blocks, exactly as it was before; None if the file did not exist.

    Raises ConfigError as :func:`parse_blocks`.
    """
    parts = parse_blocks(text)
    if "created" in parts.words and not parts.own.strip():
        return None
    return parts.own


def parse_blocks(text: bytes) -> Parts:
    """Find our blocks.

    A second, unedited copy of a block is dropped.  Raises ConfigError with the line of a block that
    is broken, was edited or has lost its marks, or if the file is not plain text.
    """
    _check_encoding(text)
    blocks: dict[str, bytes] = {}
    words: set[str] = set()
    own = b""
    position = 0
    while (mark := _ANY_MARK.search(text, position)) is not None:
        _check_own(text, position, mark.start())
        own += text[position : mark.start()]
        kind, body, more, position = _read_block(text, mark.start())
        blocks.setdefault(kind, body)
        words |= more
    _check_own(text, position, len(text))
    # If the user has added lines below our block, the line above it needs its newline.
    if "no-newline" in words and position == len(text):
        own = own.removesuffix(b"\n")
    own += text[position:]
    return Parts(own, blocks.get("top"), blocks.get("end"), frozenset(words))


def read_blocks(path: str) -> Parts:
    """Find our blocks in the file at `path`, which need not exist.

    Raises ConfigError as :func:`read` and :func:`parse_blocks`.
    """
    text, _ = read(real_path(path))
    return parse_blocks(text or b"")


def _check_encoding(text: bytes) -> None:
    """Raise ConfigError if the file begins with a byte order mark, which ssh does not accept."""
    if text.startswith((codecs.BOM_UTF8, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise ConfigError(
            "the ssh config is not plain UTF-8 text, so ssh cannot read it; nothing was changed",
            hint="save it as UTF-8 without a byte order mark (BOM), then run dcs-proxy config-ssh",
        )


def _check_own(text: bytes, start: int, end: int) -> None:
    """Raise ConfigError if the user's part of the file has lines of a block without its marks."""
    if left := _OURS.search(text, start, end):
        raise _broken(
            text, left.start(), "has lost its # >>> and # <<< lines",
            "delete what is left of it, from its first Host dm-* line to its last Host * line, at "
            "the top and at the end of the file, and run dcs-proxy config-ssh again",
        )  # fmt: skip


def edit(path: str, change: Callable[[bytes | None], bytes | None]) -> bool:
    """Replace the contents of the file at `path` by what `change` returns for them.

    None stands for a file that does not exist.  Return whether the file has changed.  A symbolic
    link stays one, mode and owner stay the same, and the write is atomic if possible.  What another
    program writes to the file at the same time is preserved, and if it replaces the file, the new
    one is edited too.  Raises ConfigError as :func:`read` and :func:`check_way`, or if the file
    cannot be written, StateError if the disk is full, and what `change` raises.
    """
    check_way(path)
    target = real_path(path)
    old, status = read(target)
    new = change(old)
    if new == old:
        return False
    if status is None or old is None:
        if not _create(target, new or b""):
            edit(path, change)
        return True
    late = _take_away(target) if new is None else _replace(path, target, status, old, new)
    if late.startswith(old) and (added := late[len(old) :]):
        edit(path, lambda text: change((text or b"") + added))
    elif late != old:
        edit(path, lambda text: change(late if text == new else text))
    return True


def check_way(path: str) -> None:
    """Raise ConfigError if other users can decide which file the absolute path names.

    They could by a link in a directory that they can write to.  A file of another user in a
    directory of ours is no such case: ssh will refuse it, and config-ssh warn of that.
    """
    distrust = find_distrust(path)
    target = real_path(path)
    if distrust is None or (distrust.place == target and not is_shared(os.path.dirname(target))):
        return
    raise distrusted(path, "the ssh config", ConfigError, distrust)


def _create(target: str, new: bytes) -> bool:
    """Create a file; return False if another program has created it meanwhile."""

    def put(temporary: str, target: str) -> None:
        try:
            os.link(temporary, target)
        except FileExistsError:
            raise
        except OSError:  # a file system without hard links
            os.replace(temporary, target)
        else:
            os.unlink(temporary)

    make_directories(os.path.dirname(target))
    try:
        write_atomically(target, new, put=put)
    except StateError as error:
        if not isinstance(error.__cause__, FileExistsError):
            raise
        return False
    return True


def _take_away(target: str) -> bytes:
    """Remove a file; return its last contents."""
    out = f"{target}.{os.getpid()}.tmp"
    try:
        os.rename(target, out)
        with open(out, "rb") as file:
            late = _read_to_the_end(file)
    except FileNotFoundError:
        return b""
    except OSError as error:
        raise cannot_write(target, error) from None
    remove_file(out)
    return late


def _read_to_the_end(file: BinaryIO) -> bytes:
    """Return the contents of a replaced file once no program has it open for writing.

    On Linux a read lease is granted only then (fcntl(2)).  Elsewhere, and after `_SETTLE_S`, return
    its current contents.
    """
    end = time.monotonic() + _SETTLE_S
    while hasattr(fcntl, "F_SETLEASE") and time.monotonic() < end:
        try:
            fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
            break
        except BlockingIOError:
            time.sleep(_SETTLE_TURN_S)
        except OSError:  # not supported, for example by a network file system
            break
    return file.read()


def _replace(path: str, target: str, status: os.stat_result, old: bytes, new: bytes) -> bytes:
    """Write `target`, to which `path` resolves; return the last contents of the replaced file."""
    late = old

    def put(temporary: str, target: str) -> None:
        nonlocal late
        with open(target, "rb") as before:
            if not exchange(temporary, target):
                os.replace(temporary, target)
                late = _read_to_the_end(before)
                return
        # `temporary` is now the file that was replaced, which an editor may just have saved.
        try:
            with open(temporary, "rb") as replaced:
                late = _read_to_the_end(replaced)
        except OSError:
            exchange(temporary, target)
            raise
        os.unlink(temporary)

    owner = (status.st_uid, status.st_gid)
    try:
        write_atomically(target, new, stat.S_IMODE(status.st_mode), owner, put)
    except StateError as error:
        cause = error.__cause__
        if not isinstance(cause, OSError) or cause.errno not in _IRREPLACEABLE:
            raise
        if not _write_in_place(target, new):
            raise _not_ours_to_write(path, error) from None
    return late


def _write_in_place(path: str, data: bytes) -> bool:
    """Overwrite a file that cannot be replaced; return whether that was possible."""
    try:
        with open(path, "r+b") as file:
            file.write(data)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())
    except OSError:
        return False
    return True


def _not_ours_to_write(path: str, error: StateError) -> ConfigError:
    other = f"{path}-dcs-proxy"
    return ConfigError(
        error.message,
        hint=f"write another file: dcs-proxy config-ssh --ssh-config {shlex.quote(other)}, and put"
        f" the line Include {other} first in {path}, with the tool that manages that file",
    )


def read(path: str) -> tuple[bytes | None, os.stat_result | None]:
    """Return a config file's bytes and status, or two None if it does not exist.

    Raises ConfigError if it is not a regular file, too large, or not readable.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        return None, None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}", hint=_FILE_HINT) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ConfigError(f"{path} is not a regular file", hint=_FILE_HINT)
        with os.fdopen(fd, "rb", closefd=False) as file:
            text = file.read(_MAX_FILE + 1)
    finally:
        os.close(fd)
    if len(text) > _MAX_FILE:
        raise ConfigError(f"{path} is too large to be an ssh config file", hint=_FILE_HINT)
    return text, status


def edit_lock(
    lock_path: str, command: str = "config-ssh", timeout_s: float = _LOCK_LIMIT_S
) -> FileLock:
    """Take the lock that prevents another `command` from editing at the same time.

    Raises LockHeld, which names its holder, after `timeout_s`.
    """
    return wait_for_lock(lock_path, timeout_s=timeout_s, what=command)


def difference(old: bytes, new: bytes, path: str) -> list[str]:
    """Return the lines of a unified diff."""
    before, after = (data.decode("utf-8", "backslashreplace").splitlines() for data in (old, new))
    return [*difflib.unified_diff(before, after, fromfile=path, tofile=path, lineterm="")]


def _block(kind: str, body: str, words: set[str]) -> bytes:
    data = body.encode("utf-8", "surrogateescape")
    more = "".join(f" {word}" for word in sorted(words))
    begin = f"# >>> dcs-proxy {kind} {_digest(data)}{more} >>> {_NOTE}\n"
    return begin.encode() + data + f"# <<< dcs-proxy {kind} <<<\n".encode()


def _read_block(text: bytes, start: int) -> tuple[str, bytes, set[str], int]:
    """Return kind, body and words of the block at `start`, and the position behind it."""
    begin = _BEGIN.match(text, start)
    if begin is None:
        raise _broken(text, start, "has no valid first line")
    kind = begin[1].decode()
    close = f"# <<< dcs-proxy {kind} <<<".encode()
    following = _ANY_MARK.search(text, begin.end())
    if following is None or following[0].strip() != close:
        raise _broken(text, start, "has no last line")
    body = text[begin.end() : following.start()]
    if _digest(body) != begin[2].decode():
        raise _broken(text, start, "was edited by hand")
    return kind, body, set(begin[3].decode().split()), following.end()


def _digest(body: bytes) -> str:
    words = b" ".join(body.replace(b'"', b" ").split())
    return hashlib.sha256(words).hexdigest()[:16]


def _broken(text: bytes, position: int, what: str, hint: str = _DELETE) -> ConfigError:
    line = text.count(b"\n", 0, position) + 1
    return ConfigError(
        f"the dcs-proxy block at line {line} of the ssh config {what}; nothing was changed",
        hint=hint,
    )
