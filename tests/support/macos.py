"""Programs started as on a Mac, as far as Linux can play one: pytest --as-macos.

In a mount namespace of its own, each program finds an empty /proc, a `ps` that answers all the
same (from the real /proc, mounted elsewhere), our package without splice and without a way to ask
the kernel who is behind a socket, and an ssh that calls itself Apple's.  Users have a long HOME, so
that the agents' sockets are not in the state directory.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

import dcs_proxy

_FASTPATH = Path(dcs_proxy.__file__).parent / "fastpath"
_HIDE = """\
set -e
mount --rbind /proc '{root}/proc'
mount -t tmpfs none /proc
mount -t tmpfs none '{fastpath}/__pycache__'
for file in helper.py relay.py; do mount --bind "{root}/$file" "{fastpath}/$file"; done
exec "$@"
"""
_PS = """\
#!/bin/sh
[ "$1 $2 $3 $4" = "-ww -o args= -p" ] && tr '\\0' ' ' <'{root}/proc'/"$5"/cmdline && echo
"""
_SSH = """\
#!/bin/sh
[ "$*" != -V ] || {{ echo 'OpenSSH_9.9p2, LibreSSL 3.3.6' >&2; exit; }}
exec {ssh} "$@"
"""
# What is gone, by file.
_LOST = (
    ("helper.py", re.compile(r"^(PEER_OPTIONS) = \(.*?^\)$", re.MULTILINE | re.DOTALL), r"\1 = ()"),
    ("relay.py", re.compile(r"^(_splice) = .*$", re.MULTILINE), r"\1 = None"),
)


class Mac:
    """Where the scripts are; `environment` is what a user's needs of it."""

    def __init__(self) -> None:
        self._root = Path(tempfile.mkdtemp(prefix="mac"))
        (self._root / "proc").mkdir()
        directory = self._root / "bin"
        directory.mkdir()
        (self._root / "run").mkdir(mode=0o700)
        self.environment = {
            "PATH": os.pathsep.join([str(directory), os.environ["PATH"]]),
            "XDG_RUNTIME_DIR": str(self._root / "run"),
        }
        words = {"root": self._root, "fastpath": _FASTPATH, "ssh": shutil.which("ssh")}
        (self._root / "hide").write_text(_HIDE.format(**words))
        for name, text in (("ps", _PS), ("ssh", _SSH)):
            (directory / name).write_text(text.format(**words))
            (directory / name).chmod(0o755)
        for name, what, instead in _LOST:
            text, count = what.subn(instead, (_FASTPATH / name).read_text())
            assert count == 1, f"{name} has changed"
            (self._root / name).write_text(text)
        (_FASTPATH / "__pycache__").mkdir(exist_ok=True)

    def wrap(self, command: Sequence[str]) -> list[str]:
        """Return the command line that runs a program so; it keeps its process number."""
        return [
            "unshare", "--mount", "--map-root-user", "/bin/sh", str(self._root / "hide"), *command
        ]  # fmt: skip

    def problem(self) -> str:
        """Return why programs cannot be run so, "" if they can."""
        done = subprocess.run(self.wrap(["true"]), capture_output=True, text=True)
        return done.stderr.strip() if done.returncode else ""

    def close(self) -> None:
        shutil.rmtree(self._root)
