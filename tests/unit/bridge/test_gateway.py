"""Whom the gateway's side believes, in its first key exchange and in later ones."""

from __future__ import annotations

import paramiko
import pytest

from dcs_proxy.bridge import gateway as module
from dcs_proxy.bridge.gateway import Gateway
from dcs_proxy.bridge.login import Login
from dcs_proxy.errors import Untrusted
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.certificates import Authority
from dcs_proxy.ssh.wire import pack_string

LOGIN = Login("ssh.example", 22, "me", Authority(b"ca"), Agent("/nowhere"), b"key", b"key")
RSA = pack_string(b"rsa-sha2-512") + pack_string(b"signature")
SHA_1 = pack_string(b"ssh-rsa") + pack_string(b"signature")


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The host keys whose certificates were checked, all but b"forged" with success."""
    seen: list[bytes] = []

    def check(blob: bytes, **_: object) -> None:
        seen.append(blob)
        if blob == b"forged":
            raise Untrusted("forged")

    monkeypatch.setattr(module, "check_host_certificate", check)
    # The signature itself is paramiko's work.
    monkeypatch.setattr(paramiko.Transport, "_verify_key", lambda *_: None)
    return seen


@pytest.fixture
def gateway() -> Gateway:
    """A gateway's side in the middle of a key exchange, without a connection."""
    made = Gateway.__new__(Gateway)
    made._login, made._proved, made._binding = LOGIN, b"", None
    made.host_key_type = "rsa-sha2-512-cert-v01@openssh.com"
    made.session_id = b"session"
    return made


@pytest.mark.parametrize("signature", [SHA_1, pack_string(b"ssh-ed25519"), b"", b"\0\0\0\xff"])
def test_a_signature_by_another_algorithm_than_agreed_is_refused(
    gateway: Gateway, checked: list[bytes], signature: bytes
) -> None:
    """paramiko takes the algorithm that the signature names, SHA-1 too."""
    with pytest.raises(Untrusted):
        gateway._verify_key(b"certificate", signature)
    assert gateway._binding is None


def test_each_new_certificate_is_checked_and_the_agent_is_bound_to_the_first_exchange(
    gateway: Gateway, checked: list[bytes]
) -> None:
    for host_key in (b"first", b"first", b"second"):
        gateway._verify_key(host_key, RSA)
    with pytest.raises(Untrusted):
        gateway._verify_key(b"forged", RSA)
    assert checked == [b"first", b"second", b"forged"]
    assert gateway._binding is not None
    assert gateway._binding.host_key == b"first"
