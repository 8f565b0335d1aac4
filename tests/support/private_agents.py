"""Agents, authorities and certificates for tests of agents."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from dcs_proxy.ssh.agent import Agent, Destination
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import KeyPair, public_line
from dcs_proxy.ssh.private_agents import PrivateAgents
from tests.support.keys import blob_of, certify, line_of, make_key
from tests.support.openssh import run
from tests.support.waiting import LIMIT_S


@dataclass(frozen=True)
class Place:
    """Where a private agent lives."""

    directory: str

    @property
    def sockets(self) -> str:
        return os.path.join(self.directory, "sockets")

    @property
    def path(self) -> str:
        return os.path.join(self.sockets, "agent-1.sock")

    @property
    def lock_path(self) -> str:
        return os.path.join(self.sockets, "lock")

    @property
    def agents(self) -> PrivateAgents:
        return PrivateAgents(self.directory)

    def ensure(self, timeout_s: float = LIMIT_S) -> Agent:
        return self.agents.ready(timeout_s=timeout_s)

    def pids(self) -> list[int]:
        """Return the agents' processes that have not ended."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                words = (entry / "cmdline").read_bytes().split(b"\0")
                if any(word.startswith(self.sockets.encode()) for word in words[1:]):
                    found.append(int(entry.name))
        return found

    def the_pid(self) -> int:
        (pid,) = self.pids()
        return pid


@dataclass(frozen=True)
class Authority:
    """A certificate authority made by ssh-keygen."""

    path: Path

    @property
    def line(self) -> str:
        return line_of(self.path)

    @property
    def blob(self) -> bytes:
        return blob_of(self.line)

    def certify(self, public: Path, *options: str) -> Path:
        return certify(self.path, public, "-I", "id", *options)


def make_authority(directory: Path, name: str) -> Authority:
    return Authority(make_key(directory / name))


def listed(agent: Agent) -> list[str]:
    """Return what ssh-add shows, one line for each identity."""
    done = run("ssh-add", "-L", SSH_AUTH_SOCK=agent.path)
    return done.stdout.splitlines() if done.returncode == 0 else []


def certified_key(directory: Path, authority: Authority, principal: str) -> tuple[KeyPair, Path]:
    """Return a key pair and the file of its user certificate."""
    key = generate_key()
    public = directory / "user.pub"
    public.write_text(public_line(key.public) + "\n")
    return key, authority.certify(public, "-n", principal, "-V", "-5m:+1h")


def add(agent: Agent, key: KeyPair, certificate: Path, destination: Destination | None) -> bool:
    blob = blob_of(certificate.read_text())
    return agent.add_certificate(
        key, blob, comment="dm-foo", lifetime_s=600, destination=destination
    )


def install(directory: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Put a program of ours before the real ssh-agent."""
    program = directory / "bin" / "ssh-agent"
    program.parent.mkdir()
    program.write_text(script)
    program.chmod(0o700)
    monkeypatch.setenv("PATH", str(program.parent) + os.pathsep + os.environ["PATH"])
