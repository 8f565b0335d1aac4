from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dcs_proxy.session.directory import StateDirectory
from tests.fake_agent import Store, fake_agent
from tests.unit.session.fakes import Stage


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    with fake_agent() as agent:
        store = Store()
        agent.answer = store
        yield Stage(StateDirectory(str(tmp_path / "state")), agent, store)
