"""Watching every process for a secret that it should not have."""

from __future__ import annotations

import os
import threading
from pathlib import Path


class SecretWatch:
    """Looks at every process, over and over, for a secret where none should be.

    That is in any arguments but those of `excepted` (and of its children before they run their own
    program), and in the environment of programs that need
    none of ours: ssh-agent, what looks after it, and the short ssh that asks for the guest.
    """

    def __init__(self, secret: str, excepted: int) -> None:
        self.secret = secret.encode()
        self.excepted = str(excepted)
        self.found: set[str] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> SecretWatch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(0.02):
            for process in Path("/proc").iterdir():
                if process.name.isdigit() and process.name != self.excepted:
                    try:
                        self._look(process)
                    except OSError:
                        continue

    def _look(self, process: Path) -> None:
        words = (process / "cmdline").read_bytes().split(b"\0")
        parent = (process / "stat").read_text().rpartition(")")[2].split()[1]
        if parent == self.excepted:
            return
        if any(self.secret in word for word in words):
            self.found.add(f"the arguments of {words[0].decode()}")
        program = os.path.basename(words[0])
        lone = program in (b"ssh-agent", b"ssh-add") or words[1:3] == [b"-F", b"none"]
        if lone and self.secret in (process / "environ").read_bytes():
            self.found.add(f"the environment of {program.decode()}")
