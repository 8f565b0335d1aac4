"""What the real ssh-agent takes, and logins with it through the real ssh and sshd."""

from __future__ import annotations

import socket
import subprocess
from getpass import getuser
from pathlib import Path

import pytest

from dcs_proxy.errors import AgentRefused
from dcs_proxy.ssh.agent import Agent, Destination
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import public_line
from tests.support.fake_agent import fake_agent, framed
from tests.support.keys import blob_of, public_file
from tests.support.openssh import run
from tests.support.private_agents import (
    Authority,
    Place,
    add,
    certified_key,
    listed,
    make_authority,
)
from tests.support.sshd import Sshd
from tests.support.waiting import wait_until


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
    assert run("ssh-add", "-x", **environment).returncode == 0
    locked = place.ensure()
    assert locked.identities() == []
    with pytest.raises(AgentRefused) as refused:
        locked.add_key(generate_key(), comment="", lifetime_s=60)
    assert agent.path in refused.value.message and "ssh-add -X" in refused.value.hint
    assert run("ssh-add", "-X", **environment).returncode == 0
    locked.add_key(generate_key(), comment="", lifetime_s=60)


Done = subprocess.CompletedProcess[str]


def ssh(agent: Agent, gateway: Sshd, authority: Authority, *options: str) -> Done:
    """Run ``echo in`` on the gateway, which ssh trusts by its authority, as gw.example."""
    known_hosts = gateway.host_key.with_name("known_hosts")
    known_hosts.write_text(f"@cert-authority gw.example {authority.line}\n")
    settings = {
        "IdentityAgent": agent.path,
        "IdentitiesOnly": "yes",
        "HostName": "127.0.0.1",
        "Port": str(gateway.port),
        "HostKeyAlias": "gw.example",
        "UserKnownHostsFile": str(known_hosts),
        "GlobalKnownHostsFile": "none",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
    }
    words = [word for pair in settings.items() for word in ("-o", "=".join(pair))]
    return run("ssh", "-F", "none", "-v", *words, *options, f"{getuser()}@dm-foo", "echo in")


def start_gateway(directory: Path, host_ca: Authority, user_ca: Authority) -> Sshd:
    return Sshd(
        directory, user_ca=public_file(user_ca.path), host_ca=host_ca.path,
        principals=["gw.example"],
    )  # fmt: skip


def test_a_bound_certificate_logs_in_to_its_gateway(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, getuser())
    assert add(agent, key, certificate, Destination("gw.example", authority.blob))
    with start_gateway(tmp_path / "gateway", authority, authority) as gateway:
        done = ssh(agent, gateway, authority, "-i", str(certificate))
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr


def test_a_bound_certificate_does_not_log_in_anywhere_else(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, getuser())
    stranger = make_authority(tmp_path, "stranger")
    destinations = [
        Destination("gw.example", authority.blob),
        Destination("other.example", stranger.blob),
    ]
    with start_gateway(tmp_path / "gateway", stranger, authority) as gateway:
        for destination in destinations:
            assert add(agent, key, certificate, destination)
            done = ssh(agent, gateway, stranger, "-i", str(certificate))
            assert done.returncode == 255 and "Permission denied" in done.stderr, done.stderr
        # The gateway is not at fault: unbound, the same certificate is let in.
        assert not add(agent, key, certificate, None)
        assert ssh(agent, gateway, stranger, "-i", str(certificate)).stdout == "in\n"


def test_a_bare_key_in_the_agent_logs_in_with_a_certificate_from_a_file(
    place: Place, authority: Authority, tmp_path: Path
) -> None:
    agent = place.ensure()
    key, certificate = certified_key(tmp_path, authority, getuser())
    agent.add_key(key, comment="", lifetime_s=600)
    with start_gateway(tmp_path / "gateway", authority, authority) as gateway:
        done = ssh(
            agent, gateway, authority, "-i", str(tmp_path / "user.pub"),
            "-o", f"CertificateFile={certificate}",
        )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "in\n"), done.stderr
