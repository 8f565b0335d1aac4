from __future__ import annotations

import fcntl
import os
import select
import socket
import threading
import time

import paramiko
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.ssh import disconnect
from dcs_proxy.ssh.disconnect import disconnect_bytes, send_disconnect
from dcs_proxy.text import safe_line


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=3000))
def test_the_disconnect_message_is_one_whole_packet(text: str) -> None:
    banner, _, packet = disconnect_bytes(text).partition(b"\r\n")
    assert banner == b"SSH-2.0-dcs_proxy"
    length, padding = int.from_bytes(packet[:4], "big"), packet[4]
    assert len(packet) == 4 + length and len(packet) % 8 == 0 and padding >= 4
    message = paramiko.Message(packet[5 : len(packet) - padding])
    assert (message.get_byte(), message.get_int()) == (b"\x01", 11)
    said = message.get_binary().decode()
    safe = safe_line(text)
    assert safe.startswith(said) and len(said.encode()) > min(len(safe.encode()), 2000) - 4
    assert message.get_binary() == b"" and message.get_remainder() == b""


@pytest.mark.parametrize("text", ["x" * 5000, "é" * 5000, "x" + "é" * 5000, "\U0001f600" * 700])
def test_a_long_reason_is_cut_between_two_characters(text: str) -> None:
    packet = disconnect_bytes(text).partition(b"\r\n")[2]
    message = paramiko.Message(packet[10:])
    said = message.get_binary()
    assert text.startswith(said.decode()) and 1997 <= len(said) <= 2000


def test_a_disconnect_is_sent_and_what_ssh_says_is_read_to_its_end() -> None:
    ours, theirs = socket.socketpair()
    with ours:
        sender = threading.Thread(
            target=send_disconnect, args=("dm-foo: so",),
            kwargs={"fdpass": False, "stdin": theirs.fileno(), "stdout": theirs.fileno()},
        )  # fmt: skip
        sender.start()
        assert b"dm-foo: so" in ours.recv(4096)
        ours.sendall(b"SSH-2.0-client\r\n" * 1000)
        assert sender.is_alive()
        ours.shutdown(socket.SHUT_WR)
        sender.join(20)
        assert not sender.is_alive()
    theirs.close()


def test_a_disconnect_to_nobody_is_no_error() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    send_disconnect("so", fdpass=False, stdin=writer, stdout=writer)
    send_disconnect("so", fdpass=True, stdin=writer, stdout=writer)
    os.close(writer)


def test_what_waits_for_ssh_holds_none_of_our_descriptors(monkeypatch: pytest.MonkeyPatch) -> None:
    """ssh and its user would otherwise wait for the end of a pipe that only it still holds."""
    monkeypatch.setattr(disconnect, "_DRAIN_S", 120)
    ssh, ours = socket.socketpair()
    reader, writer = os.pipe()
    high = fcntl.fcntl(writer, fcntl.F_DUPFD, 200)
    send_disconnect("so", fdpass=True, stdin=ours.fileno(), stdout=ours.fileno())
    ours.close()
    _, (passed,), _, _ = socket.recv_fds(ssh, 1, 1)
    os.close(writer)
    os.close(high)
    assert select.select([reader], [], [], 30)[0]
    assert os.read(reader, 1) == b""
    # It still waits for us to read the reason.
    with socket.socket(fileno=passed) as gateway:
        gateway.sendall(b"SSH-2.0-OpenSSH\r\n")
        assert b"so" in gateway.recv(4096)
    os.close(reader)
    ssh.close()


def test_a_client_that_never_goes_is_left_after_ten_seconds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = [1000.0]
    waits: list[float] = []

    class Poll:
        """Always has something to read; each time it takes six seconds."""

        def register(self, fd: int, events: int) -> None:
            assert events == select.POLLIN

        def poll(self, limit_ms: float) -> list[int]:
            waits.append(limit_ms)
            now[0] += 6
            return [1]

    monkeypatch.setattr(select, "poll", Poll)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(disconnect, "_drain_in_background", lambda *_: pytest.fail("a process"))
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(b"x" * 200_000)
        send_disconnect("so", fdpass=False, stdin=theirs.fileno(), stdout=theirs.fileno())
    assert waits == [10_000, 4_000]


def test_a_reason_that_no_terminal_can_show_is_sent_in_some_form() -> None:
    packet = disconnect_bytes("a\udcffb").partition(b"\r\n")[2]
    assert paramiko.Message(packet[10:]).get_binary().decode().startswith("a")


def test_our_end_of_a_connection_that_was_handed_over_is_not_kept() -> None:
    """Only the process in the background has it; otherwise no end would ever be seen."""
    ssh, ours = socket.socketpair()
    before = set(os.listdir("/dev/fd"))
    with ssh, ours:
        send_disconnect("so", fdpass=True, stdin=ours.fileno(), stdout=ours.fileno())
        _, (passed,), _, _ = socket.recv_fds(ssh, 1, 1)
        with socket.socket(fileno=passed) as gateway:
            assert b"so" in gateway.recv(4096)
    assert len(set(os.listdir("/dev/fd")) - before) <= 1
