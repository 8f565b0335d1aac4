"""Checks of what we keep on this computer: the state directory and the agent."""

from __future__ import annotations

import os
import stat

from dcs_proxy.doctor.context import NO_MACHINE, Context
from dcs_proxy.doctor.runner import Check, passed
from dcs_proxy.errors import AgentRefused
from dcs_proxy.local.files import remove_file, write_atomically
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.ssh.agent import Agent, Destination
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import KeyPair

_COMMENT = "dcs-proxy doctor"
_LIFETIME_S = 60
# RFC 6761: a name that no host has.
_NOWHERE = "doctor.invalid"


def check_state(exam: Context) -> Check:
    """The state directory: ours, closed to others, and with room to write."""
    state = StateDirectory(exam.options.state_directory(exam.environment))
    probe = state.file(f"doctor.{os.getpid()}.tmp")
    try:
        write_atomically(probe, b"doctor\n")
    finally:
        remove_file(probe)
    exam.state = state
    return passed(f"{state.path}, mode {stat.S_IMODE(os.stat(state.path).st_mode):04o}")


def check_agent(exam: Context) -> Check:
    """The agent: it answers, takes what we lend for a while, and gives it back."""
    session_context = exam.open_context()
    agent = session_context.open_agent(NO_MACHINE)
    held = len(agent.identities())
    takes = _try_agent(agent)
    identities = f"{held} identit{'y' if held == 1 else 'ies'}"
    return passed(f"{agent.path}: {identities}, {takes}")


def _try_agent(agent: Agent) -> str:
    """Lend the agent a certificate, or else a key, and take it away again; say what it takes.

    Raises AgentRefused if it takes neither.
    """
    key = generate_key()
    certificate = _certificate(key)
    gateway = Destination(_NOWHERE, key.blob)
    try:
        bound = agent.add_certificate(
            key, certificate, comment=_COMMENT, lifetime_s=_LIFETIME_S, destination=gateway
        )
        agent.remove(certificate)
    except AgentRefused:
        agent.add_key(key, comment=_COMMENT, lifetime_s=_LIFETIME_S)
        agent.remove(key.blob)
        return "takes keys, but no certificates, so they are not bound to the gateway"
    if bound:
        return "takes certificates and binds them to the gateway"
    return "takes certificates, but no constraint (OpenSSH before 8.9): not bound to the gateway"


def _certificate(key: KeyPair) -> bytes:
    """Return the blob of a user certificate for `key`, signed by itself and good for nobody."""
    import base64

    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        SSHCertificateBuilder,
        SSHCertificateType,
    )

    private = Ed25519PrivateKey.from_private_bytes(key.seed)
    builder = (
        SSHCertificateBuilder()
        .public_key(private.public_key())
        .type(SSHCertificateType.USER)
        .key_id(_COMMENT.encode())
        .valid_principals([_NOWHERE.encode()])
        .valid_after(0)
        .valid_before(1)
    )
    return base64.b64decode(builder.sign(private).public_bytes().split()[1])
