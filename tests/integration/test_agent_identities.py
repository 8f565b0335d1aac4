"""What the real ssh-agent takes, and logins with it through the real ssh and sshd."""

from __future__ import annotations

import os
import pwd
import socket
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from dcs_proxy.errors import AgentRefused
from dcs_proxy.ssh.agent import Agent, Destination
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import public_line
from tests.support.fake_agent import fake_agent, framed
from tests.support.private_agents import (
    Authority,
    Place,
    add,
    blob_of,
    certified_key,
    listed,
    make_authority,
    make_key,
    run,
)
from tests.support.waiting import LIMIT_S, wait_until


@pytest.mark.parametrize("bound", [True, False])
def test_a_certificate_alone_goes_in_and_out(
    place: Place, authority: Authority, tmp_path: Path, bound: bool
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, "me")
    destination = Destination("gw.example", authority.blob) if bound else None
    assert add(agent, key, certificate, destination) is bound
    expected = " ".join([*certificate.read_text().split()[:2], "dm-foo"])
    assert listed(agent) == [expected]
    blob = blob_of(expected)
    assert agent.holds(blob) and not agent.holds(key.blob) and not agent.holds(authority.blob)
    assert agent.remove(blob) and not agent.remove(blob)
    assert listed(agent) == []


def test_a_bare_key_goes_in_and_out(place: Place) -> None:
    agent = place.ensure()
    key = generate_key()
    assert not agent.add_key(key, comment="dm-foo", lifetime_s=600)
    assert listed(agent) == [f"{public_line(key.public)} dm-foo"]
    assert agent.holds(key.blob)
    assert agent.remove(key.blob) and listed(agent) == []


def test_an_identity_ends_with_its_lifetime(place: Place, authority: Authority) -> None:
    agent = place.ensure()
    key = generate_key()
    destination = Destination("gw.example", authority.blob)
    assert agent.add_key(key, comment="", lifetime_s=1, destination=destination)
    wait_until(lambda: not agent.identities())


def test_an_agent_without_the_constraint_takes_the_lifetime_alone(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, "me")
    with fake_agent() as old:
        old.answer = lambda request: refuse_constraint(agent.path, request)
        bound = add(Agent(old.path), key, certificate, Destination("gw.example", authority.blob))
    assert not bound
    assert len(old.requests) == 2 and len(listed(agent)) == 1


def refuse_constraint(path: str, request: bytes) -> bytes:
    if b"restrict-destination" in request:
        return framed(b"\x05")(request)
    with socket.socket(socket.AF_UNIX) as real:
        real.connect(path)
        real.sendall(framed(request)(request))
        return real.recv(4096)


def test_a_locked_agent_is_found_and_its_refusal_says_how_to_unlock(
    place: Place, tmp_path: Path
) -> None:
    agent = place.ensure()
    askpass = tmp_path / "askpass"
    askpass.write_text("#!/bin/sh\necho secret\n")
    askpass.chmod(0o700)
    environment = {
        "SSH_AUTH_SOCK": agent.path,
        "SSH_ASKPASS": str(askpass),
        "SSH_ASKPASS_REQUIRE": "force",
        "DISPLAY": ":0",
    }
    run("ssh-add", "-x", **environment)
    locked = place.ensure()
    assert locked.identities() == []
    with pytest.raises(AgentRefused) as refused:
        locked.add_key(generate_key(), comment="", lifetime_s=60)
    assert agent.path in refused.value.message and "ssh-add -X" in refused.value.hint
    run("ssh-add", "-X", **environment)
    locked.add_key(generate_key(), comment="", lifetime_s=60)


@dataclass(frozen=True)
class Gateway:
    """A real sshd with a certified host key, run anew for each connection (`sshd -i`)."""

    command: str
    known_hosts: Path

    def ssh(self, agent: Agent, *options: str) -> subprocess.CompletedProcess[str]:
        settings = {
            "IdentityAgent": agent.path,
            "IdentitiesOnly": "yes",
            "HostKeyAlias": "gw.example",
            "UserKnownHostsFile": str(self.known_hosts),
            "GlobalKnownHostsFile": "none",
            "StrictHostKeyChecking": "yes",
            "BatchMode": "yes",
            "ProxyCommand": self.command,
        }
        words = [word for pair in settings.items() for word in ("-o", "=".join(pair))]
        return subprocess.run(
            ["ssh", "-F", "none", "-v", *words, *options, f"{user_name()}@dm-foo", "echo in"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT_S,
        )


def user_name() -> str:
    return pwd.getpwuid(os.geteuid()).pw_name


def make_gateway(directory: Path, host_ca: Authority, user_ca: Authority) -> Gateway:
    directory.mkdir()
    host_key = make_key(directory / "host")
    certificate = host_ca.certify(host_key.with_suffix(".pub"), "-h", "-n", "gw.example")
    if os.geteuid() == 0:
        # Debian's sshd insists on it when root runs it; init makes it otherwise.
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    config = directory / "sshd_config"
    config.write_text(
        f"HostKey {host_key}\n"
        f"HostCertificate {certificate}\n"
        f"TrustedUserCAKeys {user_ca.path}.pub\n"
        "AuthorizedKeysFile none\nPasswordAuthentication no\nKbdInteractiveAuthentication no\n"
        "PermitRootLogin yes\nUsePAM no\nStrictModes no\nPidFile none\nLogLevel ERROR\n"
    )
    known_hosts = directory / "known_hosts"
    known_hosts.write_text(f"@cert-authority gw.example {host_ca.line}\n")
    return Gateway(f"/usr/sbin/sshd -i -e -f {config}", known_hosts)


def test_a_bound_certificate_logs_in_to_its_gateway(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, user_name())
    assert add(agent, key, certificate, Destination("gw.example", authority.blob))
    gateway = make_gateway(tmp_path / "gateway", authority, authority)
    done = gateway.ssh(agent, "-i", str(certificate))
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def test_a_bound_certificate_does_not_log_in_anywhere_else(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, user_name())
    stranger = make_authority(tmp_path, "stranger")
    gateway = make_gateway(tmp_path / "gateway", stranger, authority)
    destinations = [
        Destination("gw.example", authority.blob),
        Destination("other.example", stranger.blob),
    ]
    for destination in destinations:
        assert add(agent, key, certificate, destination)
        done = gateway.ssh(agent, "-i", str(certificate))
        assert done.returncode == 255 and "Permission denied" in done.stderr, done.stderr
    # The gateway is not at fault: unbound, the same certificate is let in.
    assert not add(agent, key, certificate, None)
    assert gateway.ssh(agent, "-i", str(certificate)).stdout == "in\n"


def test_a_bare_key_in_the_agent_logs_in_with_a_certificate_from_a_file(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, user_name())
    agent.add_key(key, comment="", lifetime_s=600)
    gateway = make_gateway(tmp_path / "gateway", authority, authority)
    done = gateway.ssh(
        agent, "-i", str(tmp_path / "user.pub"), "-o", f"CertificateFile={certificate}"
    )
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
