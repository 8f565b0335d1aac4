from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from dcs_proxy.session.directory import StateDirectory
from tests.support.fake_agent import Store, fake_agent
from tests.unit.session.fakes import Fakes


@pytest.fixture
def fakes(tmp_path: Path) -> Iterator[Fakes]:
    with fake_agent() as agent:
        store = Store()
        agent.answer = store
        yield Fakes(StateDirectory(str(tmp_path / "state")), agent, store)
