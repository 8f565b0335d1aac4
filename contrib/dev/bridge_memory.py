"""The bridge's memory over time, under load both ways with keys renewed all along."""

from __future__ import annotations

import hashlib
import os
import subprocess
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.processes import resident_bytes

_BLOCK = 1024 * 1024
_TURN_S = 0.1


@dataclass
class Load:
    """Sends `mebibytes` through `cat` behind an ssh, and reads them back at the same time.

    `samples` are the seconds since the start and the bridge's own resident memory in MiB then.
    """

    ssh: subprocess.Popen[bytes]
    bridge: int
    mebibytes: int
    samples: list[tuple[float, float]] = field(default_factory=list)

    def run(self) -> None:
        """Send and compare.  Raises ValueError if something else comes back."""
        block = os.urandom(_BLOCK)
        over = threading.Event()
        threads = [threading.Thread(target=self._send, args=(block,)),
                   threading.Thread(target=self._sample, args=(over,))]  # fmt: skip
        for thread in threads:
            thread.start()
        came, expected = hashlib.sha256(), hashlib.sha256()
        while data := self.ssh.stdout.read(_BLOCK):
            came.update(data)
        over.set()
        for thread in threads:
            thread.join()
        for _ in range(self.mebibytes):
            expected.update(block)
        if came.digest() != expected.digest():
            raise ValueError("what came back is not what was sent")

    def _send(self, block: bytes) -> None:
        for _ in range(self.mebibytes):
            self.ssh.stdin.write(block)
        self.ssh.stdin.close()
        self.ssh.stdin = None  # communicate, in the end, would flush it

    def _sample(self, over: threading.Event) -> None:
        start = time.perf_counter()
        while not over.wait(_TURN_S):
            memory = resident_bytes(self.bridge) / _BLOCK
            self.samples.append((time.perf_counter() - start, memory))


def draw(samples: list[tuple[float, float]], title: str, path: Path) -> None:
    """Draw the samples of a load."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    # Text as text, which keeps the file small; the same figures give the same file.
    pyplot.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "dcs-proxy"})
    _, axes = pyplot.subplots(figsize=(8, 3))
    axes.plot(*zip(*samples, strict=True), linewidth=1)
    axes.set(xlabel="seconds", ylabel="MiB", ylim=(0, None), title=title)
    pyplot.tight_layout()
    pyplot.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
