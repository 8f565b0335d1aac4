from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy.commands import dial
from dcs_proxy.errors import UsageError
from dcs_proxy.local.http_proxy import parse_http_proxy
from dcs_proxy.ssh.handover import client_gone
from tests.unit.commands.conftest import Commands


@pytest.fixture
def done(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What was done, in order, behind a socket from ssh."""
    calls: list[Any] = []
    monkeypatch.setattr(dial, "check_descriptors", lambda: calls.append("checked"))
    monkeypatch.setattr(dial, "time", SimpleNamespace(monotonic=lambda: 100.0))
    monkeypatch.setattr(dial, "is_fdpass", lambda: True)
    monkeypatch.setattr(dial, "reach", lambda *a, **more: calls.append((*a, more)) or "socket")
    monkeypatch.setattr(dial, "hand_over", calls.append)
    return calls


@pytest.mark.parametrize("proxy", [None, "http://proxy.example:3128"])
def test_the_gateway_is_reached_through_the_proxy_and_handed_over(
    commands: Commands, done: list[Any], proxy: str | None
) -> None:
    line = "" if proxy is None else f'proxy = "{proxy}"\n'
    commands.configure(f"wake_seconds = 50\nconnect_seconds = 7\n{line}")
    assert commands("dial", "ssh.example", "65535").code == 0
    checked, (through, host, port, limits), handed = done
    assert (checked, host, port, handed) == ("checked", "ssh.example", 65535, "socket")
    assert through == (None if proxy is None else parse_http_proxy(proxy))
    assert limits == {"timeout_s": 7, "deadline": 150.0, "client_gone": client_gone}


@pytest.mark.parametrize(
    ("host", "port"), [("ssh.example", "0"), ("ssh.example", "65536"), ("two words", "22")]
)
def test_what_is_no_address_is_not_dialled(
    commands: Commands, done: list[Any], host: str, port: str
) -> None:
    assert commands("dial", host, port).code == UsageError.exit_code
    assert done == ["checked"]


def test_only_an_ssh_that_takes_a_socket_is_served(
    commands: Commands, done: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dial, "is_fdpass", lambda: False)
    result = commands("dial", "ssh.example", "22")
    assert (result.code, done) == (2, ["checked"])
    assert "write ProxyUseFdpass yes beside the ProxyCommand" in result.err
