from __future__ import annotations

import base64
from pathlib import Path

import pytest

from dcs_proxy.bridge.login import login_of
from dcs_proxy.local.log import Log
from dcs_proxy.names import MachineName
from dcs_proxy.session.records import Attempt, ReadySession, Record
from dcs_proxy.ssh.keys import public_blob, public_line
from dcs_proxy.ssh.wire import pack_string

KEY = bytes(range(32))
CERTIFICATE = pack_string(b"ssh-ed25519-cert-v01@openssh.com") + b"more"
LINE = f"ssh-ed25519-cert-v01@openssh.com {base64.b64encode(CERTIFICATE).decode()}"


@pytest.mark.parametrize(
    ("certificate", "bare_key", "identity", "offered", "algorithm"),
    [
        (LINE, False, CERTIFICATE, CERTIFICATE, "ssh-ed25519-cert-v01@openssh.com"),
        # The agent holds the key alone, and the gateway gets the certificate beside it.
        (LINE, True, public_blob(KEY), CERTIFICATE, "ssh-ed25519-cert-v01@openssh.com"),
        ("", True, public_blob(KEY), public_blob(KEY), "ssh-ed25519"),
    ],
)
def test_the_gateway_is_offered_the_certificate_whatever_the_agent_holds(
    tmp_path: Path,
    certificate: str,
    bare_key: bool,
    identity: bytes,
    offered: bytes,
    algorithm: str,
) -> None:
    attempt = Attempt("k", KEY.hex(), "/agent.sock", 2000.0, "account", "wssh-1")
    authority = public_line(bytes(32))
    ready = ReadySession("ssh.example", 2222, "me", authority, certificate, bare_key, 3.0, 1.0, 1.0)
    login = login_of(MachineName("dm-foo"), Record(attempt, ready), Log(str(tmp_path / "log")))
    assert (login.endpoint, login.port, login.username) == ("ssh.example", 2222, "me")
    assert (login.identity, login.offered, login.algorithm) == (identity, offered, algorithm)
    assert login.agent.path == "/agent.sock"
    assert login.authority.line == authority


def test_a_session_that_is_not_ready_has_no_login(tmp_path: Path) -> None:
    attempt = Attempt("k", KEY.hex(), "/agent.sock", 2000.0, "account", "wssh-1")
    with pytest.raises(ValueError, match="only a ready session"):
        login_of(MachineName("dm-foo"), Record(attempt), Log(str(tmp_path / "log")))
