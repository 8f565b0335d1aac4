"""Prism (stoplight/prism), which serves an OpenAPI document or stands between and compares."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.documents import load_whole
from tests.integration.harness import LIMIT_S, clean_environment, wait_until

# Where contrib/test puts npm's packages.
_MODULES = os.environ.get("DCS_PROXY_NODE_MODULES", "")
_PROGRAM = Path(_MODULES) / ".bin" / "prism"
needs_prism = pytest.mark.skipif(
    not (_MODULES and _PROGRAM.exists() and shutil.which("node")),
    reason="DCS_PROXY_NODE_MODULES does not say where Prism is, or there is no node",
)


class Prism:
    """A running Prism; `url` is where it listens."""

    def __init__(self, output: Path) -> None:
        self._output = output
        listening = wait_until(lambda: re.search(r"listening on (http://\S+)", self._text()))
        self.url = listening[1]

    def _text(self) -> str:
        return self._output.read_text()

    def complaints(self) -> list[str]:
        """Return the lines that say what broke the document.

        Those of [CLI] list the routes with words made up for their parameters.
        """
        lines = [line for line in self._text().splitlines() if "[CLI]" not in line]
        return [line for line in lines if re.search(r"\b(error|warn)\b", line)]


def write_whole(directory: Path) -> Path:
    """Write both documents as one, for Prism takes one; return its path."""
    document = directory / "whole.json"
    document.write_text(json.dumps(load_whole()))
    return document


@contextlib.contextmanager
def compared(api: str, directory: Path) -> Iterator[str]:
    """Put Prism before a control plane; give its URL, and fail if it has complained in the end."""
    with run_prism(directory, "proxy", write_whole(directory), api) as prism:
        yield prism.url
        assert not prism.complaints()


@contextlib.contextmanager
def run_prism(directory: Path, command: str, document: Path, *upstream: str) -> Iterator[Prism]:
    """Run ``prism mock`` or ``prism proxy``; what breaks the document is answered as an error."""
    output = directory / f"prism-{command}"
    with output.open("wb") as file:
        process = subprocess.Popen(
            ["node", _PROGRAM, command, "--errors", "--port", "0", document, *upstream],
            stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT,
            env=clean_environment(),
        )  # fmt: skip
    try:
        yield Prism(output)
    finally:
        process.terminate()
        process.wait(LIMIT_S)
