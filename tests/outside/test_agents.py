"""Other clients see what ours has lent to an agent; an agent that takes less is understood."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import asyncssh
import paramiko
import pytest

from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import KeyPair, public_line
from tests.support.emulator import Emulator
from tests.support.keys import blob_of, certify, make_key
from tests.support.processes import agent_pid
from tests.support.user import User
from tests.support.waiting import wait_until

MESSAGE = b"to be signed"


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[KeyPair, bytes]:
    """A key of ours and the blob of its certificate."""
    key = generate_key()
    make_key(tmp_path / "authority")
    (tmp_path / "user.pub").write_text(f"{public_line(key.public)}\n")
    certificate = certify(tmp_path / "authority", tmp_path / "user.pub", "-I", "id")
    return key, blob_of(certificate.read_text())


def lend(agent: Agent, certificate: tuple[KeyPair, bytes]) -> list[tuple[bytes, str]]:
    """Put a key and its certificate into the agent; return what others must find there."""
    key, blob = certificate
    agent.add_key(key, comment="dm-foo bare", lifetime_s=600)
    agent.add_certificate(key, blob, comment="dm-foo", lifetime_s=600, destination=None)
    return [(key.blob, "dm-foo bare"), (blob, "dm-foo")]


def test_asyncssh_finds_what_we_lend_and_signs_with_it(
    agent: Agent, certificate: tuple[KeyPair, bytes]
) -> None:
    expected = lend(agent, certificate)
    public = asyncssh.import_public_key(public_line(certificate[0].public))

    async def look() -> list[tuple[bytes, str]]:
        client = await asyncssh.connect_agent(agent.path)
        pairs = list(await client.get_keys())
        for pair in pairs:
            assert public.verify(MESSAGE, await pair.sign_async(MESSAGE))
        client.close()
        return [(pair.public_data, pair.get_comment()) for pair in pairs]

    assert asyncio.run(look()) == expected


def test_paramiko_finds_what_we_lend_and_signs_with_it(
    agent: Agent, certificate: tuple[KeyPair, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lend(agent, certificate)
    public = paramiko.Ed25519Key(data=certificate[0].blob)
    monkeypatch.setenv("SSH_AUTH_SOCK", agent.path)
    client = paramiko.Agent()
    keys = client.get_keys()
    assert [(key.asbytes(), key.comment) for key in keys] == expected
    for key in keys:
        signature = paramiko.Message(key.sign_ssh_data(MESSAGE))
        assert public.verify_ssh_sig(MESSAGE, signature)
    client.close()


def test_we_find_what_others_have_lent(agent: Agent, tmp_path: Path) -> None:
    make_key(tmp_path / "own", "ecdsa")

    async def lend_own() -> None:
        client = await asyncssh.connect_agent(agent.path)
        own = asyncssh.read_private_key(str(tmp_path / "own"))
        own.set_comment("their own \u00fc")
        await client.add_keys([own])
        client.close()

    asyncio.run(lend_own())
    (identity,) = agent.identities()
    assert identity.blob == blob_of((tmp_path / "own.pub").read_text())
    assert identity.comment == "their own \u00fc"


# --- gpg-agent, which says that it takes a certificate, and keeps its key in a file -------------

# It asks for a passphrase to keep a key under, in a window; this one answers by itself.
PINENTRY = """\
#!/bin/sh
echo "OK ready"
while read -r command rest; do
    case $command in
        GETPIN) printf 'S PIN_REPEATED\\nD secret\\nOK\\n' ;;
        BYE) echo OK; exit ;;
        *) echo OK ;;
    esac
done
"""


@pytest.fixture
def start_gpg_agent(user: User) -> Callable[[], Agent]:
    """Start the user's gpg-agent, with a pinentry that agrees to everything."""
    if shutil.which("gpg-agent") is None or shutil.which("gpgconf") is None:
        pytest.skip("gpg-agent is missing")

    def start() -> Agent:
        home = user.root / "gnupg"
        home.mkdir(mode=0o700)
        program = user.root / "pinentry"
        program.write_text(PINENTRY)
        program.chmod(0o700)
        user.start(
            "gpg-agent", "--homedir", str(home), "--pinentry-program", str(program),
            "--disable-scdaemon", "--enable-ssh-support", "--daemon", "--no-detach",
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        listed = user.run(["gpgconf", "--homedir", str(home), "--list-dirs", "agent-ssh-socket"])
        path = listed.stdout.strip().replace("%20", " ")
        wait_until(lambda: agent_pid(path))
        user.environment["SSH_AUTH_SOCK"] = path
        return Agent(path)

    return start


def test_gpg_agent_is_refused_for_it_would_keep_the_key_in_a_file(
    start_emulator: Callable[..., Emulator],
    start_gpg_agent: Callable[[], Agent],
    user: User,
) -> None:
    agent = start_gpg_agent()
    user.settings('agent = "user"\n')
    emulator = start_emulator("--machine", "dm-foo")
    done = user.use(emulator).ssh("dm-foo", "true")
    assert done.returncode == 255
    assert "dcs-proxy: dm-foo: SSH_AUTH_SOCK is gpg-agent's, which stores every key" in done.stderr
    assert 'hint: remove agent = "user" from the config file' in done.stderr
    assert emulator.creates() == []
    assert agent.identities() == []
    assert list((user.root / "gnupg" / "private-keys-v1.d").iterdir()) == []
    user.settings("")
    assert user.ssh("dm-foo", "echo in").stdout == "in\n"
