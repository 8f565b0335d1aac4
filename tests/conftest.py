"""Options of the test run, and the table of faults that it can write."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import pytest

# Under nohup, or in the background of a script, everything that we start would ignore them, and
# tests send them.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", type=Path, help="write what each fault led to, as a table")
    parser.addoption("--kills", type=int, default=12, help="how many helpers to kill (12)")
    parser.addoption("--soak-seconds", type=float, default=15, help="how long to soak (15)")


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    path = config.getoption("--fault-table")
    if path is None:
        return
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])]
    rows = [value for r in reports for key, value in r.user_properties if key == "fault"]
    header = (
        "| fault | status | seconds | left behind | what the user reads |\n|---|---|---|---|---|\n"
    )
    lines = [
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |\n"
        for row in sorted(rows)
    ]
    path.write_text(header + "".join(lines))
