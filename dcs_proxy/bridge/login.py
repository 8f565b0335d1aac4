"""The parts of a session that the bridge needs to log in."""

from __future__ import annotations

import base64
from dataclasses import dataclass

from dcs_proxy.local.log import Log
from dcs_proxy.names import MachineName
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.agent import Agent
from dcs_proxy.ssh.certificates import Authority, parse_authority
from dcs_proxy.ssh.wire import Reader


@dataclass(frozen=True)
class Login:
    """Where a session logs in, as which user, and with which identity.

    `identity` is the key's blob in `agent`; `offered` is the blob to offer to the gateway: a
    certificate, or `identity` itself.
    """

    endpoint: str
    port: int
    username: str
    authority: Authority
    agent: Agent
    identity: bytes
    offered: bytes

    @property
    def algorithm(self) -> str:
        """The algorithm of `offered`, which for an Ed25519 key is its type."""
        return Reader(self.offered).string().decode("ascii")


def login_of(name: MachineName, record: Record, log: Log) -> Login:
    """Return the login of the ready session in `record`."""
    ready = record.ready
    if ready is None:
        raise ValueError("only a ready session has a login")
    certificate = ready.certificate.split()[1:2]
    return Login(
        endpoint=ready.endpoint,
        port=ready.port,
        username=ready.ssh_username,
        authority=parse_authority(ready.authority, name),
        agent=Agent(record.attempt.agent_path, log=log),
        identity=record.identity,
        offered=base64.b64decode(certificate[0]) if certificate else record.identity,
    )
