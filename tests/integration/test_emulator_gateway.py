"""Whom the emulator's gateway lets in, and what it forwards: asked by OpenSSH's own ssh."""

from __future__ import annotations

import socket
import subprocess
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.support.emulator import Emulator
from tests.support.keys import certify, line_of, make_key, public_file
from tests.support.waiting import LIMIT_S

Start = Callable[..., Emulator]


@dataclass
class Login:
    """A session, its private key, and a way to log in with any mixture of the two."""

    emulator: Emulator
    key: Path
    session: dict[str, Any]

    @property
    def name(self) -> str:
        return str(self.session["connection"]["ssh_username"])

    @property
    def certificate(self) -> str:
        return str(self.session["connection"]["user_certificate"])

    def ssh(
        self, *words: str, name: str = "", key: Path | None = None, certificate: str = ""
    ) -> subprocess.CompletedProcess[str]:
        """Run ssh with this key and only with the certificate that is given."""
        return subprocess.run(
            self.command(*words, name=name, key=key, certificate=certificate),
            capture_output=True, text=True, check=False, timeout=LIMIT_S,
            stdin=subprocess.DEVNULL,
        )  # fmt: skip

    def command(
        self, *words: str, name: str = "", key: Path | None = None, certificate: str = ""
    ) -> list[str]:
        """Return the words of such an ssh."""
        known = self.key.parent / "known_hosts"
        known.write_text(f"@cert-authority * {self.emulator.ready['host_ca']}\n")
        options = [
            "IdentitiesOnly yes", "IdentityAgent none", "BatchMode yes", "LogLevel INFO",
            "StrictHostKeyChecking yes", f"UserKnownHostsFile {known}",
            f"HostKeyAlias {self.emulator.ready['endpoint']}",
        ]  # fmt: skip
        if certificate:
            path = self.key.parent / f"{uuid.uuid4()}-cert.pub"
            path.write_text(f"{certificate}\n")
            options.append(f"CertificateFile {path}")
        return [
            "ssh", "-F", "none", "-i", str(key or self.key), "-l", name or self.name,
            "-p", str(self.emulator.ready["gateway"]),
            *(word for option in options for word in ("-o", option)),
            "127.0.0.1", *words,
        ]  # fmt: skip

    def close(self) -> None:
        """Close the session by the API."""
        reply = requests.delete(
            f"{self.emulator.api}/v1/machines/dm-foo/ssh/{self.session['session_id']}",
            headers={"x-api-key": self.emulator.key, "Idempotency-Key": str(uuid.uuid4())},
            timeout=LIMIT_S,
        )
        assert reply.json()["status"] == "closed"


@pytest.fixture
def make_login(start_emulator: Start, tmp_path: Path) -> Callable[..., Login]:
    """Make sessions on one emulator, each with a key of its own."""
    started: list[Emulator] = []

    def make(*arguments: str) -> Login:
        if not started:
            started.append(start_emulator("--machine", "dm-foo", *arguments))
        (emulator,) = started
        directory = tmp_path / str(uuid.uuid4())
        directory.mkdir()
        key = make_key(directory / "id")
        reply = requests.post(
            f"{emulator.api}/v1/machines/dm-foo/ssh",
            json={"public_key": line_of(key)},
            headers={"x-api-key": emulator.key, "Idempotency-Key": str(uuid.uuid4())},
            timeout=LIMIT_S,
        )
        return Login(emulator, key, reply.json())

    return make


def assert_refused(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 255
    assert "Permission denied (publickey)" in done.stderr


def test_a_session_with_a_certificate_needs_it(make_login: Callable[..., Login]) -> None:
    login = make_login()
    assert login.ssh("echo in", certificate=login.certificate).stdout == "in\n"
    assert_refused(login.ssh("true"))


def test_a_session_without_certificates_takes_its_bare_key(
    make_login: Callable[..., Login], tmp_path: Path
) -> None:
    login = make_login("--without", "certificate")
    assert login.ssh("echo in").stdout == "in\n"
    assert_refused(login.ssh("true", key=make_key(tmp_path / "other")))


def test_one_sessions_key_does_not_log_in_to_another(make_login: Callable[..., Login]) -> None:
    mine, other = make_login(), make_login()
    assert_refused(mine.ssh("true", name=other.name, certificate=mine.certificate))
    # ssh signs with the key that the certificate names, if it has it.
    assert_refused(mine.ssh("true", name=other.name, key=mine.key, certificate=other.certificate))
    assert_refused(mine.ssh("true", name="nobody", certificate=mine.certificate))


def test_a_certificate_of_another_authority_is_refused(
    make_login: Callable[..., Login], tmp_path: Path
) -> None:
    login, authority = make_login(), make_key(tmp_path / "ca")
    for principals in (login.name, "another"):
        forged = certify(authority, public_file(login.key), "-I", "id", "-n", principals)
        line = forged.read_text().strip()
        forged.unlink()
        assert_refused(login.ssh("true", certificate=line))


def test_a_closed_session_lets_nobody_in(make_login: Callable[..., Login]) -> None:
    login = make_login()
    login.close()
    assert_refused(login.ssh("true", certificate=login.certificate))


def test_an_open_connection_outlives_its_session(make_login: Callable[..., Login]) -> None:
    login = make_login()
    command = login.command("echo in; exec cat", certificate=login.certificate)
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as ssh:
        assert ssh.stdin is not None and ssh.stdout is not None
        assert ssh.stdout.readline() == "in\n"
        login.close()
        assert_refused(login.ssh("true", certificate=login.certificate))
        ssh.stdin.write("still\n")
        ssh.stdin.close()
        assert ssh.stdout.read() == "still\n"
        assert ssh.wait(LIMIT_S) == 0


@pytest.mark.parametrize("host", ["127.0.0.2", "0.0.0.0", "::ffff:127.0.0.1"])
def test_it_forwards_to_no_other_address(make_login: Callable[..., Login], host: str) -> None:
    login = make_login()
    port = login.emulator.ready["gateway"]
    done = login.ssh("-W", f"[{host}]:{port}", certificate=login.certificate)
    assert "open failed: administratively prohibited" in done.stderr


def test_it_forwards_to_loopback(make_login: Callable[..., Login]) -> None:
    login = make_login()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(LIMIT_S)
        port = server.getsockname()[1]
        command = login.command("-W", f"127.0.0.1:{port}", certificate=login.certificate)
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as ssh:
            assert ssh.stdin is not None and ssh.stdout is not None
            with server.accept()[0] as accepted:
                accepted.sendall(b"hello")
                assert ssh.stdout.read(5) == b"hello"
            ssh.kill()


@pytest.mark.parametrize("host", ["", "*", "0.0.0.0", "127.0.0.2"])
def test_it_listens_for_forwards_on_loopback_only(
    make_login: Callable[..., Login], host: str
) -> None:
    login = make_login()
    done = login.ssh(
        "-o", "ExitOnForwardFailure yes", "-R", f"{host}:0:127.0.0.1:9", "true",
        certificate=login.certificate,
    )  # fmt: skip
    assert done.returncode == 255
    assert "remote port forwarding failed" in done.stderr
    allowed = login.ssh("-R", "0:127.0.0.1:9", "true", certificate=login.certificate)
    assert allowed.returncode == 0


def test_it_offers_public_keys_only(make_login: Callable[..., Login]) -> None:
    login = make_login()
    for method in ("none", "password", "keyboard-interactive", "hostbased"):
        done = login.ssh(
            "-o", f"PreferredAuthentications {method}", "true", certificate=login.certificate
        )
        assert_refused(done)
