"""Options of the test run, and the tables that it can write: of faults, and of clients."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from dcs_proxy import text
from tests.support.client_table import Row, render, version_of

# A test must not depend on how busy the computer is.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")

pytest_plugins = ["tests.support.fixtures", "tests.support.reply_count"]

# Under nohup, or in the background of a script, everything that we start would ignore them, and
# tests send them.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--fault-table", type=Path, help="write what each fault led to, as a table")
    parser.addoption("--client-table", type=Path, help="write how each client works, as a table")
    parser.addoption(
        "--through-prism", action="store_true",
        help="put Prism between users and emulators: it compares all they say with the contract",
    )  # fmt: skip
    parser.addoption(
        "--as-macos", action="store_true",
        help="start programs without /proc, splice and SO_PEERCRED, and with a long HOME",
    )  # fmt: skip
    parser.addoption("--ansible-machines", type=int, default=4, help="how many a site has (4)")
    parser.addoption("--ansible-accounts", type=int, default=2, help="how many it has (2)")
    parser.addoption("--ansible-hosts", type=int, default=10, help="how many at once (10)")
    parser.addoption("--ansible-collections", type=Path, help="a directory with ansible.posix")
    parser.addoption("--kills", type=int, default=12, help="how many helpers to kill (12)")
    parser.addoption("--soak-seconds", type=float, default=15, help="how long to soak (15)")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "both_ids: run with dm- names and with bare UUIDs as ids")
    config.addinivalue_line("markers", "client(name, how): see tests/support/client_table.py")
    if config.getoption("--as-macos"):
        _play_macos(config)


def _play_macos(config: pytest.Config) -> None:
    from tests.support.macos import Mac
    from tests.support.user import User

    User.mac = Mac()
    config.add_cleanup(User.mac.close)
    os.environ |= User.mac.environment
    if problem := User.mac.problem():
        pytest.exit(f"--as-macos: programs cannot be run so here: {problem}", 1)


@pytest.fixture(autouse=True)
def secrets_of_one_test() -> Iterator[None]:
    """Forget what a test made the program mask, so that the next one reads its own words."""
    before = set(text._secrets)
    yield
    text._secrets.intersection_update(before)


@pytest.fixture(autouse=True)
def client_version(request: pytest.FixtureRequest) -> None:
    """Give the version of each client that a test names to the report that makes the table."""
    for mark in request.node.iter_markers("client"):
        row = Row.of(mark)
        version = version_of(row)
        if version is None:
            pytest.skip(f"{row.client} is not installed")
        request.node.user_properties.append(("client", [row.client, row.how, version]))


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.stats.get(kind, [])]
    said = [(key, value, r.passed) for r in reports for key, value in r.user_properties]
    faults, clients = config.getoption("--fault-table"), config.getoption("--client-table")
    if faults is not None:
        faults.write_text(_fault_table([value for key, value, _ in said if key == "fault"]))
    if clients is not None:
        rows = [(Row(*value[:2]), value[2], ok) for key, value, ok in said if key == "client"]
        clients.write_text(render(rows))


def _fault_table(rows: list[list[Any]]) -> str:
    header = (
        "| fault | status | seconds | left behind | what the user reads |\n|---|---|---|---|---|\n"
    )
    lines = [
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |\n"
        for row in sorted(rows)
    ]
    return header + "".join(lines)
