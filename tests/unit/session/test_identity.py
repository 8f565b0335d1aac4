"""What the agent is given for a session."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dcs_proxy.ssh import certificates as certificate
from tests.unit.session.fakes import Fakes


def test_a_certificate_is_bound_to_the_gateway(fakes: Fakes) -> None:
    fakes.resolve()
    assert any(b"restrict-destination" in request for request in fakes.agent.requests)


def test_an_agent_without_certificates_gets_the_bare_key(fakes: Fakes) -> None:
    fakes.store.refuses_certificates = True
    record = fakes.resolve()
    assert record.ready is not None and record.ready.bare_key
    assert list(fakes.store.held) == [record.identity]
    assert "agent-refused-certificate" in fakes.log()
    assert fakes.resolve() == record


def test_the_private_key_is_nowhere_in_the_state_directory(
    fakes: Fakes, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = []
    generate = certificate.generate_key

    def remember() -> Any:
        made.append(generate())
        return made[-1]

    monkeypatch.setattr("dcs_proxy.session.steps.generate_key", remember)
    fakes.resolve()
    (key,) = made
    for path in Path(fakes.state.path).rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            assert key.seed not in data and key.seed.hex().encode() not in data
