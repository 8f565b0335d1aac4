"""What the agent is given for a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.ssh import certificates as certificate
from tests.unit.session.fakes import Stage


def test_a_certificate_is_bound_to_the_gateway(stage: Stage) -> None:
    stage.resolve()
    assert any(b"restrict-destination" in request for request in stage.agent.requests)


def test_an_agent_without_certificates_gets_the_bare_key(stage: Stage) -> None:
    stage.store.refuses_certificates = True
    record = stage.resolve()
    assert record.ready is not None and record.ready.bare_key
    assert list(stage.store.held) == [record.identity]
    assert "agent-refused-certificate" in stage.log()
    assert stage.resolve() == record


def test_the_private_key_is_nowhere_in_the_state_directory(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    generate = certificate.generate_key

    def remember() -> Any:
        made.append(generate())
        return made[-1]

    monkeypatch.setattr("dcs_proxy.session.steps.generate_key", remember)
    stage.resolve()
    (key,) = made
    for path in Path(stage.state.path).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert key.seed not in data and key.seed.hex().encode() not in data
