from __future__ import annotations

import ctypes
import fcntl
import os
import re
import socket
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dcs_proxy.errors import AgentRefused, AgentUnavailable
from dcs_proxy.fastpath import helper
from dcs_proxy.local.log import Log
from dcs_proxy.ssh.agent import (
    Agent,
    AgentMissing,
    Destination,
    Identity,
    SessionBinding,
    _set_timeout,
    destination_constraint,
    lifetime_constraint,
    parse_identities,
    session_bind,
)
from dcs_proxy.ssh.keys import KeyPair, public_line
from dcs_proxy.ssh.wire import WireError, pack_string, pack_u32
from tests.support.fake_agent import FakeAgent, fake_agent, framed, socket_directory

SEED, PUBLIC = b"\xaa" * 32, b"\xbb" * 32
KEY = KeyPair(SEED, PUBLIC)
SUCCESS, FAILURE = b"\x06", b"\x05"
DESTINATION = Destination("gw.example", b"CA")

# Written out by hand from RFC 9987 and OpenSSH's encode_dest_constraint.
LIFETIME_60 = bytes.fromhex("01 0000003c")
ADD_KEY = (
    bytes.fromhex("19 0000000b")
    + b"ssh-ed25519"
    + (bytes.fromhex("00000020") + PUBLIC)
    + (bytes.fromhex("00000040") + SEED + PUBLIC)
    + (bytes.fromhex("00000001") + b"c")
    + LIFETIME_60
)
ADD_CERTIFICATE = (
    bytes.fromhex("19 00000020")
    + b"ssh-ed25519-cert-v01@openssh.com"
    + (bytes.fromhex("00000004") + b"CERT")
    + (bytes.fromhex("00000020") + PUBLIC)
    + (bytes.fromhex("00000040") + SEED + PUBLIC)
    + (bytes.fromhex("00000001") + b"c")
    + LIFETIME_60
)
TO_GATEWAY = (
    bytes.fromhex("ff 00000024")
    + b"restrict-destination-v00@openssh.com"
    + bytes.fromhex("00000039 00000035")
    + bytes.fromhex("0000000c 00000000 00000000 00000000")
    + bytes.fromhex("0000001d 00000000 0000000a")
    + b"gw.example"
    + bytes.fromhex("00000000 00000002")
    + b"CA"
    + bytes.fromhex("01 00000000")
)


@pytest.fixture
def fake() -> Iterator[FakeAgent]:
    with fake_agent() as agent:
        yield agent


def answer_list(*identities: tuple[bytes, bytes]) -> bytes:
    body = b"".join(pack_string(blob) + pack_string(comment) for blob, comment in identities)
    return b"\x0c" + pack_u32(len(identities)) + body


def add_certificate(agent: Agent, destination: Destination | None) -> bool:
    return agent.add_certificate(KEY, b"CERT", comment="c", lifetime_s=60, destination=destination)


def test_a_key_pair_shows_its_public_half_only() -> None:
    assert repr(KEY) == f"KeyPair(public={PUBLIC!r})"
    assert KEY.blob == bytes.fromhex("0000000b") + b"ssh-ed25519" + pack_u32(32) + PUBLIC
    assert public_line(KEY.public) == (
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAILu7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7u7"
    )


def test_a_key_pair_of_another_length_is_none() -> None:
    with pytest.raises(ValueError, match="32 bytes"):
        KeyPair(SEED + PUBLIC, PUBLIC)


def test_a_bare_key_is_added_byte_for_byte(fake: FakeAgent) -> None:
    fake.answer = framed(SUCCESS)
    assert not Agent(fake.path).add_key(KEY, comment="c", lifetime_s=60)
    assert fake.requests == [ADD_KEY]


def test_a_certificate_is_added_byte_for_byte(fake: FakeAgent) -> None:
    fake.answer = framed(SUCCESS)
    assert not add_certificate(Agent(fake.path), None)
    assert fake.requests == [ADD_CERTIFICATE]


def test_a_destination_is_added_byte_for_byte(fake: FakeAgent) -> None:
    fake.answer = framed(SUCCESS)
    assert destination_constraint(DESTINATION) == TO_GATEWAY
    assert add_certificate(Agent(fake.path), DESTINATION)
    assert Agent(fake.path).add_key(KEY, comment="c", lifetime_s=60, destination=DESTINATION)
    assert fake.requests == [ADD_CERTIFICATE + TO_GATEWAY, ADD_KEY + TO_GATEWAY]


def test_a_lifetime_is_never_nothing_and_never_too_long() -> None:
    assert lifetime_constraint(-5) == lifetime_constraint(0) == b"\x01" + pack_u32(1)
    assert lifetime_constraint(2**64) == b"\x01" + b"\xff" * 4


def test_an_agent_that_refuses_the_constraint_gets_the_lifetime_alone(fake: FakeAgent) -> None:
    fake.answer = framed(FAILURE, SUCCESS)
    assert not add_certificate(Agent(fake.path), DESTINATION)
    assert fake.requests == [ADD_CERTIFICATE + TO_GATEWAY, ADD_CERTIFICATE]


@pytest.mark.parametrize("failure", [b"\x05", b"\x1e", b"\x66"])
def test_an_agent_that_takes_no_certificate_is_named(fake: FakeAgent, failure: bytes) -> None:
    fake.answer = framed(failure)
    with pytest.raises(AgentRefused) as refused:
        add_certificate(Agent(fake.path), DESTINATION)
    expected = f"the agent at {fake.path} does not accept a certificate identity"
    assert refused.value.message == expected
    assert "ssh-add -X" in refused.value.hint and 'agent = "user"' in refused.value.hint
    assert len(fake.requests) == 2


def test_removing_what_is_not_there_says_so(fake: FakeAgent) -> None:
    fake.answer = framed(SUCCESS, FAILURE)
    assert Agent(fake.path).remove(b"BLOB")
    assert not Agent(fake.path).remove(b"BLOB")
    assert fake.requests == [bytes.fromhex("12 00000004") + b"BLOB"] * 2


BINDING = SessionBinding(b"HOST", b"SESSION", b"PROOF")
BIND = (
    bytes.fromhex("1b 00000018")
    + b"session-bind@openssh.com"
    + (bytes.fromhex("00000004") + b"HOST")
    + (bytes.fromhex("00000007") + b"SESSION")
    + (bytes.fromhex("00000005") + b"PROOF")
    + b"\0"
)
SIGN = bytes.fromhex("0d 00000004") + b"BLOB" + bytes.fromhex("00000004") + b"DATA" + bytes(4)


@pytest.mark.parametrize("bound", [SUCCESS, FAILURE, b"\x1c"])
def test_a_signature_is_asked_for_once_the_connection_is_bound_or_cannot_be(
    fake: FakeAgent, bound: bytes
) -> None:
    assert session_bind(BINDING) == BIND
    fake.per_connection = 2
    fake.answer = framed(bound, b"\x0e" + pack_string(b"SIGNATURE"))
    assert Agent(fake.path).sign(b"BLOB", b"DATA", BINDING) == b"SIGNATURE"
    assert fake.requests == [BIND, SIGN]


def test_a_refusal_to_sign_is_a_refusal(fake: FakeAgent) -> None:
    fake.per_connection = 2
    fake.answer = framed(SUCCESS, FAILURE)
    with pytest.raises(AgentRefused, match="refused to sign"):
        Agent(fake.path).sign(b"BLOB", b"DATA", BINDING)


@pytest.mark.parametrize("body", [b"", b"\0\0\0\2a", pack_string(b"S") + b"more"])
def test_a_malformed_signature_is_no_answer(fake: FakeAgent, body: bytes) -> None:
    fake.per_connection = 2
    fake.answer = framed(SUCCESS, b"\x0e" + body)
    with pytest.raises(AgentUnavailable, match="sent a malformed"):
        Agent(fake.path).sign(b"BLOB", b"DATA", BINDING)


def test_identities_are_listed_in_order(fake: FakeAgent) -> None:
    fake.answer = framed(answer_list((b"one", b"a comment"), (b"two", b"\xff")))
    expected = [Identity(b"one", "a comment"), Identity(b"two", "\N{REPLACEMENT CHARACTER}")]
    assert Agent(fake.path).identities() == expected
    assert fake.requests == [b"\x0b"]


def test_a_key_inside_another_identity_is_not_held(fake: FakeAgent) -> None:
    ca = pack_string(b"CA key") + pack_string(b"")
    fake.answer = framed(answer_list((b"certificate" + ca, ca)))
    assert not Agent(fake.path).holds(b"CA key")
    assert Agent(fake.path).holds(b"certificate" + ca)
    fake.answer = framed(answer_list((b"one", b""), (b"two", b"")), answer_list())
    assert Agent(fake.path).holds(b"two")
    assert not Agent(fake.path).holds(b"two"), "it holds nothing any more"


def test_an_agents_process_is_found_without_a_request(
    fake: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(helper, "peer", lambda sock: (os.geteuid(), 77))
    assert Agent(fake.path).pid() == 77
    # The end of the connection, if the agent has seen it by now, is one without bytes.
    assert not any(fake.requests)


def test_a_refusal_to_list_is_a_refusal(fake: FakeAgent) -> None:
    with pytest.raises(AgentRefused) as refused:
        Agent(fake.path).identities()
    assert refused.value.message == f"the agent at {fake.path} refused to list identities"
    assert "ssh-add -X" in refused.value.hint


def test_an_agent_that_takes_no_key_is_named(fake: FakeAgent) -> None:
    with pytest.raises(AgentRefused) as refused:
        Agent(fake.path).add_key(KEY, comment="c", lifetime_s=60)
    assert refused.value.message == f"the agent at {fake.path} does not accept an identity"


def test_a_socket_is_named_without_its_control_characters() -> None:
    """SSH_AUTH_SOCK may be any text."""
    with socket_directory() as directory:
        fake = FakeAgent(os.path.join(directory, "a\x1b[2J.sock"))
        fake.thread.start()
        agent = Agent(fake.path)
        for call in (agent.identities, lambda: agent.add_key(KEY, comment="c", lifetime_s=60)):
            with pytest.raises(AgentRefused) as refused:
                call()
            assert refused.value.message.isprintable()
        fake.answer = framed(b"\x07")
        with pytest.raises(AgentUnavailable) as unavailable:
            agent.identities()
        assert unavailable.value.message.isprintable()
        fake.stop()
        os.unlink(fake.path)
        with pytest.raises(AgentMissing) as missing:
            agent.identities()
        assert missing.value.message.isprintable()


def test_each_reply_is_logged_for_who_wants_to_know(fake: FakeAgent, tmp_path: Path) -> None:
    agent = Agent(fake.path, log=Log(str(tmp_path / "log"), "debug"))
    fake.answer = framed(answer_list(), SUCCESS, FAILURE, SUCCESS, SUCCESS)
    agent.identities()
    agent.add_key(KEY, comment="c", lifetime_s=60)
    add_certificate(agent, DESTINATION)
    agent.remove(KEY.blob)
    lines = (tmp_path / "log").read_text().splitlines()
    said = [re.fullmatch(r"\S+ \[\d+/\d+\] (.*) ms=\d{1,5}", line) for line in lines]
    assert [match and match[1] for match in said] == [
        'agent asked="list identities" reply=12',
        'agent asked="add an identity" reply=6',
        'agent asked="add a certificate identity" reply=5',
        'agent asked="add a certificate identity" reply=6',
        'agent asked="remove an identity" reply=6',
    ]


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"", "closed the connection in the middle of a request"),
        (b"\0\0", "closed the connection in the middle of a request"),
        (pack_u32(5) + b"\x0c", "closed the connection in the middle of a request"),
        (pack_u32(0), "sent a malformed reply: 0 bytes announced"),
        (pack_u32(256 * 1024 + 1), "sent a malformed reply: 262145 bytes announced"),
        (b"\xff" * 4, "sent a malformed reply: 4294967295 bytes announced"),
        (pack_string(b"\x06"), "sent a malformed reply: type 6, 0 bytes"),
        (pack_string(b"\x05\x00"), "sent a malformed reply: type 5, 1 bytes"),
        (pack_string(answer_list((b"k", b"c"))[:-1]), "sent a malformed list: "),
        (pack_string(answer_list((b"k", b"c")) + b"x"), "sent a malformed list: 1 bytes too many"),
        (pack_string(b"\x0c" + b"\xff" * 4), "sent a malformed list: "),
    ],
)
def test_a_malformed_reply_is_said_with_the_socket(fake: FakeAgent, sent: bytes, said: str) -> None:
    fake.answer = lambda _request: sent
    with pytest.raises(AgentUnavailable) as unavailable:
        Agent(fake.path).identities()
    assert unavailable.value.message.startswith(f"the agent at {fake.path} {said}")
    assert said.endswith(": ") or unavailable.value.message.endswith(said)
    assert unavailable.value.hint


def test_bytes_after_success_are_malformed(fake: FakeAgent) -> None:
    fake.answer = framed(SUCCESS + b"\0")
    with pytest.raises(AgentUnavailable) as unavailable:
        Agent(fake.path).remove(b"BLOB")
    said = "sent a malformed reply: bytes after SSH_AGENT_SUCCESS"
    assert unavailable.value.message == f"the agent at {fake.path} {said}"


def test_a_reply_of_the_greatest_length_is_read(fake: FakeAgent) -> None:
    comment = b"c" * (256 * 1024 - 14)
    fake.answer = framed(answer_list((b"k", comment)))
    assert Agent(fake.path).identities() == [Identity(b"k", comment.decode())]


@given(
    reply=st.one_of(
        st.binary(),
        st.binary(min_size=1).map(pack_string),
        st.binary().map(lambda tail: pack_string(b"\x0c" + tail)),
        st.tuples(st.integers(0, 3), st.binary()).map(
            lambda pair: pack_string(b"\x0c" + pack_u32(pair[0]) + pair[1])
        ),
    )
)
@settings(max_examples=150, deadline=None)
def test_garbage_from_an_agent_ends_in_our_own_errors(
    garbage_agent: FakeAgent, reply: bytes
) -> None:
    garbage_agent.answer = lambda _request: reply
    agent = Agent(garbage_agent.path)
    for call in (
        agent.identities,
        lambda: agent.holds(b"k"),
        lambda: agent.remove(b"k"),
        lambda: add_certificate(agent, DESTINATION),
    ):
        try:
            call()
        except (AgentUnavailable, AgentRefused) as error:
            assert garbage_agent.path in error.message


@pytest.fixture(scope="module")
def garbage_agent() -> Iterator[FakeAgent]:
    with fake_agent() as agent:
        yield agent


@given(st.binary())
def test_a_garbled_list_parses_or_is_a_wire_error(body: bytes) -> None:
    try:
        identities = parse_identities(body)
    except WireError:
        return
    assert len(body) >= 4 + 8 * len(identities)


@given(st.lists(st.builds(Identity, st.binary(), st.text())))
def test_a_list_survives_the_round_trip(identities: list[Identity]) -> None:
    reply = answer_list(*((identity.blob, identity.comment.encode()) for identity in identities))
    assert parse_identities(reply[1:]) == identities


def test_no_socket_and_no_listener_are_a_missing_agent() -> None:
    with socket_directory() as directory:
        path = os.path.join(directory, "agent.sock")
        with pytest.raises(AgentMissing, match="No such file") as missing:
            Agent(path).identities()
        assert path in missing.value.message and "SSH_AUTH_SOCK" in missing.value.hint
        with socket.socket(socket.AF_UNIX) as sock:
            sock.bind(path)
        with pytest.raises(AgentMissing, match="refused"):
            Agent(path).identities()


@pytest.mark.parametrize("has_read", [True, False], ids=["after the request", "before it"])
def test_an_agent_that_exits_while_it_is_asked_is_missing(has_read: bool) -> None:
    with socket_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path := os.path.join(directory, "agent.sock"))
        listener.listen()

        def exit_when_asked() -> None:
            connection, _ = listener.accept()
            # What is not read when a connection is closed resets it.
            connection.recv(5 if has_read else 1)
            listener.close()
            connection.close()

        thread = threading.Thread(target=exit_when_asked)
        thread.start()
        with pytest.raises(AgentMissing):
            Agent(path).identities()
        thread.join()


def test_an_agent_that_drops_one_connection_is_asked_again(fake: FakeAgent) -> None:
    answers = [b"", pack_string(answer_list((b"k", b"c")))]
    fake.answer = lambda _request: answers.pop(0)
    assert Agent(fake.path).identities() == [Identity(b"k", "c")]
    assert len(fake.requests) == 2


@pytest.mark.parametrize("kind", [BrokenPipeError, ConnectionResetError])
def test_an_agent_that_breaks_one_connection_is_asked_again(
    fake: FakeAgent, monkeypatch: pytest.MonkeyPatch, kind: type[OSError]
) -> None:
    """Which of the errors it is depends on the moment."""
    errors = [kind(), None]
    ask = Agent._ask

    def break_the_first(self: Agent, sock: socket.socket, request: bytes, deadline: float) -> bytes:
        if (error := errors.pop(0)) is not None:
            raise error
        return ask(self, sock, request, deadline)

    monkeypatch.setattr(Agent, "_ask", break_the_first)
    fake.answer = framed(answer_list((b"k", b"c")))
    assert Agent(fake.path).identities() == [Identity(b"k", "c")]
    errors += [kind(), kind()]
    with pytest.raises(AgentUnavailable, match="closed the connection in the middle of a request"):
        Agent(fake.path).identities()


def test_a_path_that_no_socket_can_have_is_unavailable(fake: FakeAgent) -> None:
    for path, why in (
        ("/tmp/" + "x" * 150, "AF_UNIX path too long"), (fake.path + "/x", "Not a directory")
    ):  # fmt: skip
        with pytest.raises(AgentUnavailable) as unavailable:
            Agent(path).identities()
        assert unavailable.value.message == f"the agent at {path} cannot be used: {why}"


def test_a_reply_in_pieces_is_put_together_and_what_follows_it_left() -> None:
    with socket_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.join(directory, "agent.sock"))
        listener.listen()
        reply = pack_string(answer_list((b"key", b"comment")))

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                for piece in (reply[:2], reply[2:5], reply[5:9], reply[9:] + b"more"):
                    connection.sendall(piece)
                    await_reader(connection)

        serving = threading.Thread(target=serve)
        serving.start()
        try:
            found = Agent(listener.getsockname()).identities()
        finally:
            serving.join()
        assert found == [Identity(b"key", "comment")]


def await_reader(connection: socket.socket) -> None:
    """Wait until the other side has read all that was sent, or is gone (SIOCOUTQ)."""
    left = ctypes.c_int(1)
    deadline = time.monotonic() + 30
    while left.value and time.monotonic() < deadline:
        fcntl.ioctl(connection, termios.TIOCOUTQ, left)
        time.sleep(0.001)


def test_the_limit_of_a_request_ends_with_its_last_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "monotonic", lambda: 100.0)
    with socket.socket(socket.AF_UNIX) as sock:
        _set_timeout(sock, 100.5)
        assert sock.gettimeout() == 0.5
        with pytest.raises(TimeoutError):
            _set_timeout(sock, 100.0)


def test_an_agent_that_says_nothing_runs_into_the_limit(fake: FakeAgent) -> None:
    stopped = threading.Event()
    fake.answer = lambda _request: (stopped.wait(30), b"")[1]
    try:
        with pytest.raises(AgentUnavailable, match=r"did not answer within 0\.2 s"):
            Agent(fake.path, timeout_s=0.2).identities()
    finally:
        stopped.set()


def test_a_reply_that_drips_runs_into_the_limit() -> None:
    with socket_directory() as directory, socket.socket(socket.AF_UNIX) as listener:
        listener.bind(os.path.join(directory, "agent.sock"))
        listener.listen()
        given_up = threading.Event()

        def drip() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.sendall(pack_u32(200_000))
                while not given_up.wait(0.05):
                    connection.sendall(b"\x0c")

        dripping = threading.Thread(target=drip)
        dripping.start()
        try:
            with pytest.raises(AgentUnavailable, match="did not answer"):
                Agent(listener.getsockname(), timeout_s=0.3).identities()
        finally:
            given_up.set()
            dripping.join()


def test_a_full_backlog_is_waited_for() -> None:
    with socket_directory() as directory:
        agent = FakeAgent(os.path.join(directory, "agent.sock"), backlog=0)
        agent.answer = framed(answer_list())
        with socket.socket(socket.AF_UNIX) as first, socket.socket(socket.AF_UNIX) as second:
            first.connect(agent.path)
            second.setblocking(False)
            with pytest.raises(BlockingIOError):
                second.connect(agent.path)
            with pytest.raises(AgentUnavailable, match="did not answer"):
                Agent(agent.path, timeout_s=0.1).identities()
            threading.Timer(0.1, agent.thread.start).start()
            first.close()
            assert Agent(agent.path).identities() == []
        agent.stop()


def test_an_agent_of_another_user_is_not_spoken_to(
    fake: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answer = framed(answer_list())
    assert Agent(fake.path).identities() == []
    monkeypatch.setattr(helper, "peer", lambda _sock: (4711, None))
    with pytest.raises(AgentUnavailable, match=f"belongs to user id 4711, not {os.geteuid()}"):
        Agent(fake.path).identities()
    deadline = time.monotonic() + 10
    while len(fake.requests) < 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert fake.requests == [b"\x0b", b""]


def test_root_may_run_the_agent(fake: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    fake.answer = framed(answer_list())
    monkeypatch.setattr(helper, "peer", lambda _sock: (0, None))
    assert Agent(fake.path).identities() == []


def test_where_the_system_does_not_tell_the_directory_must_be_ours(
    fake: FakeAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.answer = framed(answer_list())
    monkeypatch.setattr(helper, "PEER_OPTIONS", ())
    assert Agent(fake.path).identities() == []
    os.chmod(os.path.dirname(fake.path), 0o777)
    with pytest.raises(AgentUnavailable, match=f"others can write to {os.path.dirname(fake.path)}"):
        Agent(fake.path).identities()
