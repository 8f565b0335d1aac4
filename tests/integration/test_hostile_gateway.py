"""A gateway with the right host key that wants more than the session's certificate."""

from __future__ import annotations

import asyncio
import contextlib
import shlex
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import asyncssh
import pytest
from cryptography.hazmat.primitives.asymmetric import ed25519

from dcs_proxy.emulator.authority import Authorities, private_pem
from tests.support.emulator import Emulator
from tests.support.keys import make_key
from tests.support.user import User, insert_between_blocks

Start = Callable[..., Emulator]
_PROMPT = "API key for https://dcs.dedaluslabs.ai: "


class Asking(asyncssh.SSHServer):
    """Refuses every key, and asks for a password and by keyboard-interactive.

    `offered` are the public keys that clients offer, `answers` what they answer.
    """

    offered: ClassVar[list[str]]
    answers: ClassVar[list[str]]

    def begin_auth(self, username: str) -> bool:
        return True

    def public_key_auth_supported(self) -> bool:
        return True

    def validate_public_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self.offered.append(key.export_public_key().decode().strip())
        return False

    def validate_ca_key(self, username: str, key: asyncssh.SSHKey) -> bool:
        self.offered.append("the certificate")
        return False

    def password_auth_supported(self) -> bool:
        return True

    def validate_password(self, username: str, password: str) -> bool:
        self.answers.append(password)
        return False

    def kbdint_auth_supported(self) -> bool:
        return True

    def get_kbdint_challenge(
        self, username: str, lang: str, submethods: str
    ) -> tuple[str, str, str, list[tuple[str, bool]]]:
        return "", "the key has expired", "", [(_PROMPT, True)]

    def validate_kbdint_response(self, username: str, responses: object) -> bool:
        self.answers.append(str(responses))
        return False


@pytest.fixture
def gateway(tmp_path: Path) -> Iterator[tuple[int, Path, type[Asking]]]:
    """Run an Asking gateway: its port, the directory of its authorities, and its class."""
    authorities = tmp_path / "authorities"
    key = ed25519.Ed25519PrivateKey.generate()
    line = Authorities(str(authorities)).sign_host(key, "localhost")
    pair = (asyncssh.import_private_key(private_pem(key)), asyncssh.import_certificate(line))

    class Here(Asking):
        offered: ClassVar[list[str]] = []
        answers: ClassVar[list[str]] = []

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    async def listen() -> asyncssh.SSHAcceptor:
        return await asyncssh.listen("127.0.0.1", 0, server_factory=Here, server_host_keys=[pair])

    acceptor = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
    try:
        yield acceptor.get_port(), authorities, Here
    finally:
        loop.call_soon_threadsafe(acceptor.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        with contextlib.suppress(RuntimeError):
            loop.close()


@pytest.mark.parametrize("way", ["handover", "bridge"])
def test_a_gateway_that_asks_for_the_api_key_is_asked_for_nothing_in_return(
    start_emulator: Start,
    user: User,
    gateway: tuple[int, Path, type[Asking]],
    tmp_path: Path,
    way: str,
) -> None:
    port, authorities, asking = gateway
    emulator = start_emulator(
        "--machine", "dm-foo", "--ca-directory", str(authorities),
        "--gateway", f"localhost:{port}", "--endpoint", "localhost",
    )  # fmt: skip
    user.use(emulator)
    # Every question goes to a program that notes and answers it.
    ask = tmp_path / "askpass"
    ask.write_text(
        f'#!/bin/sh\necho "$1" >>{shlex.quote(str(tmp_path / "asked"))}; echo dsk-typed\n'
    )
    ask.chmod(0o755)
    user.environment |= {"SSH_ASKPASS": str(ask), "SSH_ASKPASS_REQUIRE": "force", "DISPLAY": ":9"}
    if way == "bridge":
        command = shlex.join([shutil.which("dcs-proxy") or "dcs-proxy", "dm-foo", "22"])
        done = user.run(
            ["ssh", "-F", "none", "-o", f"ProxyCommand={command}", "-o",
             f"UserKnownHostsFile={shlex.quote(str(user.state / 'known_hosts'))}", "dm-foo", "true"]
        )  # fmt: skip
    else:
        insert_between_blocks(user.config, "Host *\n    PreferredAuthentications password\n")
        done = user.ssh("dm-foo", "true")
    assert done.returncode == 255
    assert not asking.answers
    assert not (tmp_path / "asked").exists()
    assert _PROMPT not in done.stdout + done.stderr


def test_only_our_identity_and_those_that_the_users_config_names_are_offered(
    start_emulator: Start, user: User, gateway: tuple[int, Path, type[Asking]]
) -> None:
    port, authorities, asking = gateway
    emulator = start_emulator(
        "--machine", "dm-foo", "--ca-directory", str(authorities),
        "--gateway", f"localhost:{port}", "--endpoint", "localhost",
    )  # fmt: skip
    user.use(emulator)
    path = user.start_agent()
    directory = user.home / ".ssh"
    directory.mkdir(mode=0o700)
    key = make_key(directory / "id_ed25519")
    added = user.run(["ssh-add", str(key)], env={**user.environment, "SSH_AUTH_SOCK": path})
    assert added.returncode == 0
    user.ssh("dm-foo", "true")
    assert set(asking.offered) == {"the certificate"}
