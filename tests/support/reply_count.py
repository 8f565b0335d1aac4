"""Tell at the end of a test run how many of the emulator's replies were checked."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.openapi import Tally

_KEY = "replies_checked"


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Add what one of xdist's workers has checked."""
    Tally.checked += getattr(node, "workeroutput", {}).get(_KEY, 0)


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[_KEY] = Tally.checked


def pytest_terminal_summary(terminalreporter: Any) -> None:
    if Tally.checked:
        terminalreporter.write_line(f"{Tally.checked} replies of the emulator keep to the contract")
