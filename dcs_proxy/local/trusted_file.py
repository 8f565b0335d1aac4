"""Read security-sensitive files: those that decide where the API key is sent, or what is trusted.

A user who can change such a file, or a directory in its path, could decide instead.  So the file
and every directory and symbolic link in its path must belong to us or to root, and other users must
not be able to write to them.  The home directory and its parents are not checked: a user who can
write there can do anything in our name.

Fedora, Red Hat and Ubuntu give each user a private group, which may write to all files that the
user creates (umask 002).  That is safe, because the group has no other members.
"""

from __future__ import annotations

import codecs
import grp
import os
import pwd
import select
import shlex
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass

from dcs_proxy.errors import DcsError

_LIMIT = 256 * 1024
# Password managers provide secrets through FIFOs, and may ask the user before they write.
_FIFO_S = 10.0
# As Linux (path_resolution(7)).
_MAX_LINKS = 40
_KINDS = {
    stat.S_IFDIR: "a directory",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


@dataclass(frozen=True)
class Distrust:
    """Why a file cannot be trusted: `place` is the path that has the problem.

    `problem` completes "PLACE …", `hint` is a command that repairs it.
    """

    place: str
    problem: str
    hint: str


@dataclass(frozen=True)
class TrustedFile:
    """The contents of a file, without the byte order mark that some editors write.

    `is_private` is whether only its owner can read it; `hint` is a command that makes it so.
    """

    data: bytes
    is_private: bool
    hint: str


def read_trusted(
    path: str, what: str, error: type[DcsError], *, limit: int = _LIMIT
) -> TrustedFile | None:
    """Return the file at the absolute path, None if it does not exist.

    It may also be a FIFO, which is read for at most `_FIFO_S` seconds, or /dev/null.  `what` names
    the file in messages ("the key file").  Raises `error` if the file is anything else, cannot be
    read, has more than `limit` bytes or cannot be trusted.
    """
    try:
        status = os.stat(path)  # before opening it, which has side effects on some devices
        if status.st_rdev and status.st_rdev == os.stat(os.devnull).st_rdev:
            return TrustedFile(b"", True, "")
        if kind := _KINDS.get(stat.S_IFMT(status.st_mode)):
            raise error(f"{what} {path} is {kind}", hint="name a file")
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        if os.path.islink(path):
            hint = f"create that file, or remove the link: rm {shlex.quote(path)}"
            raise error(f"{what} {path} is a link to a missing file", hint=hint) from None
        return None
    except OSError as failure:
        raise _unreadable(path, what, error, failure) from None
    try:
        status = os.fstat(fd)
        if distrust := find_distrust(path, status):
            raise distrusted(path, what, error, distrust)
        data = _read(fd, status, limit)
    except TimeoutError:
        raise error(
            f"{what} {path} is a FIFO, and nothing was written to it within {_FIFO_S:g} s",
            hint="start or unlock the program that writes to it",
        ) from None
    except OSError as failure:
        raise _unreadable(path, what, error, failure) from None
    finally:
        os.close(fd)
    if len(data) > limit:
        raise error(f"{what} {path} is larger than {limit // 1024} KiB", hint="name another file")
    data = data.removeprefix(codecs.BOM_UTF8)
    return TrustedFile(data, not status.st_mode & 0o077, f"chmod 600 {shlex.quote(path)}")


def find_distrust(path: str, status: os.stat_result | None = None) -> Distrust | None:
    """Return why other users could decide what is at the absolute path, None if they could not.

    `status` is that of the file that was found there.  Without it, the file is about to be written
    or removed: it may be missing, and of the file itself only the owner matters.
    """
    if status is not None and (found := judge(path, status)):
        return found
    home = _with_parents(real_path(os.path.expanduser("~")))
    for place, is_last in _steps(path):
        if place in home:
            continue
        try:
            found_there = os.lstat(place)
        except OSError:
            return _judge_shared(place, "is missing, and other users can create it")
        if is_last and status is None:
            found = _judge_owned(place, found_there)
            return found or _judge_unmapped(place, found_there.st_uid)
        if found := judge(place, found_there) or _judge_unmapped(place, found_there.st_uid):
            return found
    return None


def _judge_owned(place: str, status: os.stat_result) -> Distrust | None:
    """Return why what is at `place` must not be written or removed, None if it may be."""
    if found := judge_owner(place, status.st_uid):
        return found
    # Where Linux does not protect hard links, other users can give our files more names.
    if stat.S_ISREG(status.st_mode) and status.st_nlink > 1:
        return _judge_shared(place, "is a hard link, which other users can create there")
    return None


def _judge_unmapped(place: str, uid: int) -> Distrust | None:
    """Return why what is at `place` must not be trusted if it may be another user's, else None.

    In a user namespace without root, all other users are one, which then owns /.  What that user
    owns is root's, except in directories in which everyone may create files.
    """
    if uid in (os.geteuid(), 0):
        return None
    return _judge_shared(place, f"may belong to any other user (user id {uid})")


def _judge_shared(place: str, problem: str) -> Distrust | None:
    """Return that `place` has the problem if other users share its directory, else None.

    A file that is missing there may have been a link of theirs, which may come back.
    """
    parent = os.path.dirname(place)
    if not is_shared(parent):
        return None
    return Distrust(place, problem, f"look at who else uses it: ls -ld {shlex.quote(parent)}")


def real_path(path: str) -> str:
    """Return the path without symbolic links; the absolute path if that cannot be found out.

    Before Python 3.13 os.path.realpath() raises OSError for a link that goes away meanwhile, as one
    of another user may.
    """
    try:
        return os.path.realpath(path)
    except OSError:
        return os.path.abspath(path)


def is_shared(directory: str) -> bool:
    """Return whether other users can create files in a directory, but not replace ours."""
    try:
        mode = os.lstat(directory).st_mode
    except OSError:
        return False
    # judge() refuses a directory in which others can replace our files.
    return bool(mode & stat.S_ISVTX and mode & 0o022)


def find_distrust_of_file(path: str) -> Distrust | None:
    """Return why other users could decide what the file at the absolute path contains.

    None if they could not.  The file may be missing, unless others could create it as soon as we
    have looked, or be /dev/null, unless they could put another in its place.
    """
    status: os.stat_result | None
    try:
        status = os.stat(path)
    except OSError:
        status = None
    is_device = status is not None and stat.S_ISCHR(status.st_mode)
    return find_distrust(path, None if is_device else status)


def distrusted(path: str, what: str, error: type[DcsError], distrust: Distrust) -> DcsError:
    """Return the error for a file that is not trusted."""
    if distrust.place == path:
        return error(f"{what} {path} {distrust.problem}", hint=distrust.hint)
    message = f"{what} {path} is not trusted: {distrust.place} {distrust.problem}"
    return error(message, hint=distrust.hint)


def judge(path: str, status: os.stat_result) -> Distrust | None:
    """Return why the file or directory at `path`, with this status, is not trusted, else None."""
    if found := judge_owner(path, status.st_uid):
        return found
    # The mode of a link has no meaning, and that of a socket says who may connect.
    is_other = stat.S_ISLNK(status.st_mode) or stat.S_ISSOCK(status.st_mode)
    # Files in a sticky directory can be replaced only by their owners.
    is_sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    is_group = status.st_mode & 0o020 and not _is_private_group(status.st_gid, status.st_uid)
    if (is_group or status.st_mode & 0o002) and not is_other and not is_sticky:
        mode = stat.S_IMODE(status.st_mode)
        return Distrust(
            path, f"is writable by other users (mode {mode:04o})",
            f"chmod go-w {shlex.quote(path)}",
        )  # fmt: skip
    return None


def judge_owner(path: str, uid: int) -> Distrust | None:
    """Return why a file is not trusted if it belongs to user `uid`, None if it is."""
    # In a user namespace without root, root's files belong to the overflow user, which then owns /.
    # So do other users' files: _judge_unmapped() tells them apart.
    if uid in (os.geteuid(), 0, os.stat("/").st_uid):
        return None
    return Distrust(
        path,
        f"belongs to another user (user id {uid})",
        f'sudo chown "$(id -un)" {shlex.quote(path)}',
    )


def _is_private_group(gid: int, uid: int) -> bool:
    """Return whether user `uid` is the only member of a group, as Debian's ssh decides it.

    It must be their first group and no other user's; a group whose members the system does not list
    is not private.
    """
    try:
        name, members = pwd.getpwuid(uid).pw_name, grp.getgrgid(gid).gr_mem
    except KeyError:
        return False
    users = {user.pw_uid for user in pwd.getpwall() if user.pw_gid == gid}
    return users == {uid} and {*members} <= {name}


def _steps(path: str) -> Iterator[tuple[str, bool]]:
    """Yield every directory and symbolic link that the system follows to reach `path`.

    The last is the file itself, with True.
    """
    directory, links = "/", 0
    rest = _parts(path)
    while rest:
        name = rest.pop()
        if name == "..":
            directory = os.path.dirname(directory)
            continue
        here = os.path.join(directory, name)
        try:
            target = os.readlink(here)
        except OSError:
            if not rest:
                yield here, True
                return
            directory = here
        else:
            links += 1
            if links > _MAX_LINKS:
                return
            directory = "/" if target.startswith("/") else directory
            rest += _parts(target)
        yield here, False


def _parts(path: str) -> list[str]:
    """Return the names in a path, last first."""
    return [name for name in path.split("/") if name not in ("", ".")][::-1]


def _with_parents(path: str) -> set[str]:
    return {path} | (_with_parents(os.path.dirname(path)) if path != "/" else set())


def _read(fd: int, status: os.stat_result, limit: int) -> bytes:
    """Return at most `limit` + 1 bytes.  Raises OSError, or TimeoutError for a silent FIFO."""
    is_fifo = stat.S_ISFIFO(status.st_mode)
    end = time.monotonic() + _FIFO_S
    data = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while len(data) <= limit:
        # Without poll, a FIFO that no program has opened for writing would read as empty.
        if is_fifo and not poll.poll(max(0.0, end - time.monotonic()) * 1000):
            raise TimeoutError
        part = os.read(fd, limit + 1 - len(data))
        if not part:
            break
        data += part
    return data


def _unreadable(path: str, what: str, error: type[DcsError], failure: OSError) -> DcsError:
    return error(
        f"{what} {path} cannot be read: {failure.strerror}",
        hint=f"check its permissions: ls -ld {shlex.quote(path)}",
    )
