"""The table of clients: what a test says of the client that it runs, and how the table is made.

A test names its client and how that works with ``@pytest.mark.client(NAME, HOW)``, where HOW is
``works``, ``works: one line`` (ProxyCommand, without the block), ``with: SETTING`` or
``cannot: REASON``; the test proves it, "cannot" too.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version as package_version

import pytest

ONE_LINE = "works: one line"
_NUMBER = re.compile(r"\d+(?:\.\d+)+\w*")
_SSH = ("ssh", "-V")
_SSH2 = "require(process.env.DCS_PROXY_NODE_MODULES + '/ssh2/package.json').version"
# How each client tells its version: a command, or the name of a Python package.
_VERSIONS: dict[str, tuple[str, ...] | str] = {
    "Ansible": "ansible-core",
    "ansible-pylibssh": "ansible-pylibssh",
    "asyncssh": "asyncssh",
    "autossh": ("autossh", "-V"),
    "dbclient": ("dbclient", "-V"),
    "docker": ("docker", "--version"),
    "Emacs TRAMP": ("emacs", "--version"),
    "Fabric": "fabric",
    "git": ("git", "--version"),
    "gvfs": ("/usr/libexec/gvfsd", "--version"),
    "JSch": ("sh", "-c", "readlink /usr/share/java/jsch.jar"),
    "lftp": ("lftp", "--version"),
    "mc": ("mc", "--version"),
    "Mitogen": "mitogen",
    "paramiko": "paramiko",
    "plink": ("plink", "-V"),
    "pscp": ("pscp", "-V"),
    "psftp": ("psftp", "-V"),
    "rclone": ("rclone", "version"),
    "rsync": ("rsync", "--version"),
    "ssh2 (node)": ("node", "-p", _SSH2),
    "ssh-python": "ssh-python",
    "ssh2-python": "ssh2-python",
    # Its first line is fusermount's.
    "sshfs": ("sh", "-c", "sshfs --version | grep SSHFS"),
    "unison": ("unison", "-version"),
    "VS Code Agents window": ("node", "-p", _SSH2),
}


@dataclass(frozen=True)
class Row:
    """One line of the table, but for the version."""

    client: str
    how: str

    @classmethod
    def of(cls, mark: pytest.Mark) -> Row:
        """Return what a mark says.  Raises ValueError if it says it in another way."""
        row = cls(*mark.args, **mark.kwargs)
        if row.how not in ("works", ONE_LINE) and not row.how.startswith(("with: ", "cannot: ")):
            raise ValueError(f"how does {row.client} work? {row.how!r}")
        return row


def version_of(row: Row) -> str | None:
    """Return the version of a row's client, by its own word; ssh's for what belongs to ssh.

    None if the client is not installed.
    """
    source = _VERSIONS.get(row.client.partition(":")[0], _SSH)
    if isinstance(source, str):
        return package_version(source)
    try:
        done = subprocess.run(source, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return None
    found = _NUMBER.search(done.stdout + done.stderr)
    assert found, f"{source} tells no version"
    return found[0]


def render(results: Iterable[tuple[Row, str, bool]]) -> str:
    """Return the table as reStructuredText: one line for each row, failed if any test of it has.

    Each result is a row, the client's version, and whether the test passed.
    """
    rows: dict[Row, tuple[str, bool]] = {}
    for row, version, passed in results:
        before = rows.get(row, (version, True))
        rows[row] = (version, passed and before[1])
    cells = [("client", "version", "how")]
    for row, (version, passed) in sorted(rows.items(), key=lambda item: item[0].client.lower()):
        cells.append((row.client, version, row.how if passed else f"FAILED ({row.how})"))
    widths = [max(len(line[column]) for line in cells) for column in range(3)]
    rule = " ".join("=" * width for width in widths)
    text = [" ".join(map(str.ljust, line, widths)).rstrip() for line in cells]
    return "\n".join([rule, text[0], rule, *text[1:], rule, ""])


def rows_of(functions: Iterable[Callable[..., object]]) -> set[Row]:
    """Return what the marks of test functions say."""
    marks = [mark for function in functions for mark in getattr(function, "pytestmark", [])]
    return {Row.of(mark) for mark in marks if mark.name == "client"}
