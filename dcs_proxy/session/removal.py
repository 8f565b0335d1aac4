"""Remove the state directory: the files that dcs-proxy has created, and nothing else.

DCS_PROXY_HOME may name a directory with other files in it, such as a home directory.
"""

from __future__ import annotations

import os
import re

from dcs_proxy.local.files import cannot_write, read_small
from dcs_proxy.openssh.config_text import KNOWN_HOSTS, lists_other_hosts

_MAX_KNOWN_HOSTS = 16 * 1024 * 1024
_TEMPORARY = r"\..+\.tmp"
# As names.file_stem() makes it.
_STEM = r"dm-[a-z0-9-]+(\.[0-9a-f]{32})?"
_TOP = re.compile(
    rf"launcher|machines|ssh-configs|checked|known_hosts|log(\.1)?|(config(-ssh)?|bridge)\.lock|"
    rf"account-[0-9a-f]+\.json|bridge_[a-z0-9]+_key(\.\d+\.tmp)?|"
    rf"(config-ssh|doctor\.\d+)\.tmp|{_TEMPORARY}"
)
# The files that session/directory.py describes, by directory, and those of earlier versions.
_PARTS = {
    "hosts": re.compile(rf"{_STEM}\.conf|{_TEMPORARY}"),
    "agents": re.compile(rf"(only|[0-9a-f]+)\.conf|{_TEMPORARY}"),
    "sessions": re.compile(
        rf"\d+-\d*\.failed|{_STEM}\.([a-z]+|[0-9a-f]{{12}}(-cert\.pub|\.pub|\.known_hosts))|"
        rf"{_TEMPORARY}"
    ),
    "sockets": re.compile(rf"(agent-\d+|\d\d)\.(sock|pid|lock)|lock|{_TEMPORARY}"),
}


def remove_state(directory: str) -> list[str]:
    """Remove our files from a state directory, and the directory once it is empty.

    Return the paths of other files in it.  Raises StateError if something cannot be removed.
    """
    left = []
    for part, ours in _PARTS.items():
        left += _remove_files(os.path.join(directory, part), ours)
    left += [
        path for path in _remove_files(directory, _TOP)
        if os.path.basename(path) not in _PARTS
    ]  # fmt: skip
    return left


def remove_sockets(directory: str) -> list[str]:
    """Remove a directory of private agents' sockets, and its parent once that is empty too.

    Return as `remove_state`.
    """
    left = _remove_files(directory, _PARTS["sockets"])
    _remove_if_empty(os.path.dirname(directory))
    return left


def _remove_files(directory: str, ours: re.Pattern[str]) -> list[str]:
    """Remove the files with these names, then the directory if it is empty; return what is left."""
    try:
        names = sorted(os.listdir(directory))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise cannot_write(directory, error) from None
    left = []
    for name in names:
        path = os.path.join(directory, name)
        if not ours.fullmatch(name) or os.path.isdir(path) or _is_users(path):
            left.append(path)
            continue
        try:
            os.unlink(path)
        except FileNotFoundError:
            continue
        except OSError as error:
            raise cannot_write(path, error) from None
    _remove_if_empty(directory)
    return left


def _is_users(path: str) -> bool:
    """Return whether a file is the user's own known_hosts file: the state directory is ~/.ssh."""
    is_named_so = os.path.basename(path) == KNOWN_HOSTS
    return is_named_so and lists_other_hosts(read_small(path, _MAX_KNOWN_HOSTS) or b"")


def _remove_if_empty(directory: str) -> None:
    """Remove an empty directory; one that is a link or a mount point stays."""
    try:
        os.rmdir(directory)
    except OSError:
        pass
