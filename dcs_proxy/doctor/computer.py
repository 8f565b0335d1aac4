"""Checks of this computer: Python and its packages, OpenSSH, the state directory, the agent."""

from __future__ import annotations

import os
import platform
import shlex
import stat
import sys
from importlib.metadata import PackageNotFoundError, version

from dcs_proxy import __version__
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.errors import AgentRefused, ConfigError
from dcs_proxy.local.files import remove_file, write_atomically
from dcs_proxy.local.programs import find_program, install_hint
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import uses_pipes
from dcs_proxy.openssh.shell import try_shells
from dcs_proxy.openssh.version import find_client
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.ssh.agent import Agent, Destination
from dcs_proxy.ssh.certificates import generate_key
from dcs_proxy.ssh.keys import KeyPair
from dcs_proxy.text import quote_server

_PACKAGES = ("requests", "cryptography", "keyring", "paramiko")
_COMMENT = "dcs-proxy doctor"
_LIFETIME_S = 60
_AGENT_S = 20
# RFC 6761: no host has this name.
_NOWHERE = "doctor.invalid"


def check_python(context: Context) -> Check:
    """Check that Python has the packages that the program imports."""
    versions = [f"dcs-proxy {__version__}"]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            python = shlex.quote(sys.executable)
            return failed(
                f"{sys.executable} has no package {package}",
                f"install dcs-proxy again, or: {python} -m pip install {package}",
            )
    return passed(f"{platform.python_version()} at {sys.executable}, {', '.join(versions)}")


def check_ssh(context: Context) -> Check:
    """Check that ssh is an OpenSSH that works with us, and that there is an ssh-agent."""
    try:
        context.ssh = find_client()
    except ConfigError as error:
        return failed(error.message, error.hint)
    if find_program("ssh-agent", context.environment) is None:
        return failed("there is no ssh-agent in PATH", install_hint(context.environment))
    return passed(f"{context.ssh.text} at {context.ssh.path}")


def check_shell(context: Context) -> Check:
    """Check that the shell with which ssh starts us runs commands and prints nothing by itself."""
    shells = try_shells(context.environment)
    for shell in shells:
        if shell.problem:
            return failed(
                f"{shell.label} {shell.problem}",
                "set SHELL to a shell that runs commands, such as /bin/sh",
            )
        if shell.output and not _is_by_pipes(context):
            said = quote_server(shell.output)
            return failed(
                f"{shell.path} prints {said} when it starts, which ends up in every connection",
                f"look at {shell.start_files}; or run dcs-proxy config-ssh, which works around it",
            )
    return passed(", ".join(shell.path for shell in shells))


def _is_by_pipes(context: Context) -> bool:
    top = config_file.read_blocks(context.ssh_config).top or b""
    return uses_pipes(top.decode("utf-8", "surrogateescape"))


def check_state(context: Context) -> Check:
    """Check that the state directory is ours, that others cannot change it, and that we can."""
    state = StateDirectory(context.options.state_directory(context.environment))
    probe = state.file(f"doctor.{os.getpid()}.tmp")
    try:
        write_atomically(probe, b"doctor\n")
    finally:
        remove_file(probe)
    context.state = state
    return passed(f"{state.path}, mode {stat.S_IMODE(os.stat(state.path).st_mode):04o}")


def check_agent(context: Context) -> Check:
    """Check that the agent answers, accepts an identity with a lifetime, and removes it."""
    agent = context.open_session_context().agents.ready(timeout_s=_AGENT_S)
    held = len(agent.identities())
    accepted = _try_agent(agent)
    identities = f"{held} identit{'y' if held == 1 else 'ies'}"
    return passed(f"{agent.path}: {identities}, {accepted}")


def _try_agent(agent: Agent) -> str:
    """Add a certificate, else a key, to the agent and remove it; return what the agent accepts.

    Raises AgentRefused if it accepts neither.
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
        return "accepts keys but no certificates, so they are not bound to the gateway"
    if bound:
        return "accepts certificates and binds them to the gateway"
    return "accepts certificates but no constraint (OpenSSH before 8.9): not bound to the gateway"


def _certificate(key: KeyPair) -> bytes:
    """Return the blob of a self-signed user certificate for `key` that no server accepts."""
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
