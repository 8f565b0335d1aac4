"""Whom the gateway's side believes, in key exchanges and in the login."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import paramiko
import pytest
from paramiko.ssh_exception import MessageOrderError

from dcs_proxy.bridge import gateway as module
from dcs_proxy.bridge.gateway import Gateway
from dcs_proxy.bridge.login import Login
from dcs_proxy.bridge.outbox import Outbox
from dcs_proxy.bridge.side import Side
from dcs_proxy.errors import Untrusted
from dcs_proxy.names import MachineName
from dcs_proxy.ssh.agent import Agent, SessionBinding
from dcs_proxy.ssh.certificates import Authority, parse_authority
from dcs_proxy.ssh.wire import pack_string, pack_u32
from tests.support.rogues import (
    FAILURE,
    SERVICE_ACCEPT,
    SUCCESS,
    RogueGateway,
    RogueServer,
    rogue_gateway,
)
from tests.support.waiting import LIMIT_S

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
    with pytest.raises(Untrusted) as caught:
        gateway._verify_key(b"certificate", signature)
    assert "report it" in caught.value.hint
    assert gateway._binding is None


def test_each_new_certificate_is_checked_and_the_agent_is_bound_to_the_first_exchange(
    gateway: Gateway, checked: list[bytes]
) -> None:
    for host_key in (b"first", b"first", b"second"):
        gateway._verify_key(host_key, RSA)
    with pytest.raises(Untrusted):
        gateway._verify_key(b"forged", RSA)
    assert checked == [b"first", b"second", b"forged"]
    assert gateway._binding == SessionBinding(b"first", b"session", RSA)


def test_a_signature_that_does_not_fit_proves_nothing(
    gateway: Gateway, checked: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise paramiko.SSHException("signature verification failed")

    monkeypatch.setattr(paramiko.Transport, "_verify_key", fail)
    for _ in range(2):
        with pytest.raises(paramiko.SSHException):
            gateway._verify_key(b"first", RSA)
    assert gateway._binding is None and checked == [b"first", b"first"]


def test_a_certificate_is_checked_for_this_gateway_and_this_moment(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    given: list[dict[str, object]] = []
    monkeypatch.setattr(module, "check_host_certificate", lambda _, **words: given.append(words))
    monkeypatch.setattr(paramiko.Transport, "_verify_key", lambda *_: None)
    monkeypatch.setattr(time, "time", lambda: 1234.0)
    gateway._verify_key(b"first", RSA)
    assert given == [{"authority": LOGIN.authority, "endpoint": "ssh.example", "now": 1234.0}]


@pytest.mark.parametrize("error", [EOFError(), BrokenPipeError(), TimeoutError()])
def test_a_connection_that_breaks_at_the_request_answers_it(
    gateway: Gateway, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr(module._LoginAnswers, "__init__", lambda *_: None)
    monkeypatch.setattr(module._LoginAnswers, "auth_publickey", fail)
    gateway.has_answered = threading.Event()
    gateway._login = replace(LOGIN, offered=pack_string(b"ssh-ed25519"))
    gateway.log_in()
    assert gateway.has_answered.is_set()


def test_the_agent_signs_for_the_host_of_this_connection() -> None:
    asked: list[tuple[bytes, bytes, SessionBinding]] = []

    class Asked(Agent):
        def sign(self, blob: bytes, data: bytes, binding: SessionBinding) -> bytes:
            asked.append((blob, data, binding))
            return b"signature"

    binding = SessionBinding(b"host", b"session", RSA)
    certificate = pack_string(b"ssh-ed25519-cert-v01@openssh.com") + b"more"
    login = replace(LOGIN, agent=Asked("/nowhere"), offered=certificate)
    identity = module._Identity(login, binding)
    assert identity.sign_ssh_data(b"data", "ssh-ed25519") == b"signature"
    assert asked == [(b"key", b"data", binding)]
    blob = identity.public_blob
    assert (blob.key_type, blob.key_blob) == ("ssh-ed25519-cert-v01@openssh.com", certificate)
    with pytest.raises(paramiko.SSHException, match="no host to bind the agent to"):
        module._Identity(login, None).sign_ssh_data(b"data")
    assert len(asked) == 1


def test_a_key_exchange_against_quantum_computers_comes_first_where_there_is_one() -> None:
    near, far = socket.socketpair()
    with near, far:
        preferred = Gateway(near, LOGIN, Outbox(), Outbox(), lambda: None)._preferred_kex
    name = "mlkem768x25519-sha256"
    assert (preferred[0] == name) == (name in paramiko.Transport._kex_info)  # type: ignore[attr-defined]  # not in the stubs
    assert preferred[-len(Side._preferred_kex) :] == Side._preferred_kex


class Signing:
    """An agent that signs anything, and counts."""

    count = 0

    def sign(self, blob: bytes, data: bytes, binding: SessionBinding) -> bytes:
        self.count += 1
        return pack_string(b"ssh-ed25519") + pack_string(bytes(64))


@dataclass
class Reached:
    """The gateway's side, connected to a rogue gateway."""

    rogue: RogueGateway
    agent: Signing = field(default_factory=Signing)
    outbox: Outbox = field(default_factory=Outbox)
    sock: socket.socket = field(init=False)
    side: Gateway = field(init=False)

    def connect(self) -> Gateway:
        """Connect, and exchange keys."""
        line = (self.rogue.authorities / "host_ca.pub").read_text()
        login = Login(
            "localhost", self.rogue.port, "me", parse_authority(line, MachineName("dm-foo")),
            self.agent, b"key", b"\0\0\0\x0bssh-ed25519",  # type: ignore[arg-type]
        )  # fmt: skip
        self.sock = socket.create_connection(("127.0.0.1", self.rogue.port))
        self.side = Gateway(self.sock, login, Outbox(), self.outbox, lambda: None)
        self.side.start()
        assert self.side.is_negotiated.wait(LIMIT_S)
        return self.side

    def log_in(self) -> bool:
        """Log in; return whether the gateway said yes."""
        self.connect().log_in()
        assert self.side.has_answered.wait(LIMIT_S)
        return self.side.is_authenticated()


@pytest.fixture
def reached(tmp_path: Path) -> Iterator[Reached]:
    with rogue_gateway(tmp_path) as rogue:
        made = Reached(rogue)
        yield made
        made.side.close()
        assert made.side.ended.wait(LIMIT_S)
        made.sock.close()


def test_a_yes_is_a_login(reached: Reached) -> None:
    assert reached.log_in()
    assert reached.agent.count == 1


def test_a_no_is_an_answer(reached: Reached) -> None:
    reached.rogue.answers = [FAILURE]
    assert not reached.log_in()
    assert reached.side.is_active(), "the answer is the gateway's, not the end of the connection"


@pytest.mark.parametrize(
    "answers",
    [
        [SUCCESS, FAILURE], [SUCCESS, SUCCESS], [FAILURE, FAILURE], [FAILURE, SUCCESS],
        [SERVICE_ACCEPT], [SUCCESS, SERVICE_ACCEPT],
    ],
)  # fmt: skip
def test_a_request_is_answered_once(reached: Reached, answers: list[bytes]) -> None:
    """No message of the session is passed on after an answer too many."""
    reached.rogue.answers = [*answers, *[b"\x5e" + bytes(100_000)] * 50]
    reached.log_in()
    assert reached.side.ended.wait(LIMIT_S)
    assert "answers no request" in str(reached.side.get_exception())
    assert reached.agent.count == 1
    assert not reached.outbox._held


@pytest.mark.parametrize(
    "question",
    [
        # Keyboard-interactive, a change of password, a key that is accepted.
        b"\x3c" + pack_string(b"") * 3 + pack_u32(1) + pack_string(b"API key: ") + b"\0",
        b"\x3c" + pack_string(b"change your password") + pack_string(b""),
    ],
)
def test_no_question_is_answered(reached: Reached, question: bytes) -> None:
    reached.rogue.answers = [question]
    reached.log_in()
    assert not reached.side.is_authenticated()
    assert reached.side.ended.wait(LIMIT_S)
    assert not reached.rogue.served[0].heard


@pytest.mark.parametrize("number", [80, 90, 94, 98, 100, 127])
def test_no_message_is_passed_on_before_the_gateway_says_yes(reached: Reached, number: int) -> None:
    reached.rogue.answers = [bytes([number]) + pack_string(b"session") + bytes(12)]
    assert not reached.log_in()
    assert reached.side.ended.wait(LIMIT_S)
    assert not reached.outbox._held


@pytest.mark.parametrize("number", [2, 4])
@pytest.mark.parametrize("when", ["before", "within"])
def test_nothing_is_slipped_into_the_first_key_exchange(
    reached: Reached, number: int, when: str
) -> None:
    """What an attacker on the network adds there would hide what they remove later (Terrapin)."""
    slipped = bytes([number]) + pack_u32(0) * 2

    class Slipping(RogueServer):
        def _send_kex_init(self) -> None:
            if when == "before":
                self.say(slipped)
            super()._send_kex_init()  # type: ignore[misc]  # not in the stubs
            if when == "within":
                self.say(slipped)

    reached.rogue.make = Slipping
    assert reached.connect().ended.wait(LIMIT_S)
    assert isinstance(reached.side.get_exception(), MessageOrderError)
    assert not reached.rogue.served[0].logins


def test_a_packet_that_was_changed_ends_the_connection(reached: Reached) -> None:
    assert reached.log_in()
    reached.rogue.served[0].packetizer.write_all(pack_u32(16) + bytes(32))
    assert reached.side.ended.wait(LIMIT_S)
    assert not reached.outbox._held


def test_a_gateway_that_leaves_before_the_login_is_noticed(reached: Reached) -> None:
    side = reached.connect()
    reached.sock.shutdown(socket.SHUT_RDWR)
    assert side.ended.wait(LIMIT_S)
    side.log_in()
    assert side.has_answered.is_set()
    assert not side.is_authenticated()


def test_a_bare_key_is_never_asked_for() -> None:
    gateway = Gateway.__new__(Gateway)
    kinds = [name.removesuffix("-cert-v01@openssh.com") for name in gateway.preferred_keys]
    assert [f"{kind}-cert-v01@openssh.com" for kind in kinds] == list(gateway.preferred_keys)
    # Neither ssh-rsa nor ssh-dss, whose signatures use SHA-1.
    sizes = ["ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521"]
    assert kinds == ["ssh-ed25519", *sizes, "rsa-sha2-512", "rsa-sha2-256"]
