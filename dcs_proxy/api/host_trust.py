"""Host trust: the authority that proves the gateway's identity, and the names it covers."""

from __future__ import annotations

import re
from dataclasses import dataclass

from dcs_proxy.errors import Untrusted
from dcs_proxy.names import MachineName, matches
from dcs_proxy.text import quote_server

_HOST_PATTERN = re.compile(r"[A-Za-z0-9.,:*?!\[\]_-]{1,1024}\Z")


@dataclass(frozen=True)
class HostTrust:
    """What proves the gateway's host key (contract: SSHHostTrust)."""

    kind: str
    host_pattern: str
    public_key: str


def covers(host_pattern: str, *names: str) -> bool:
    """Return whether a list of known_hosts patterns matches one of a host's names.

    As OpenSSH's match_hostname: patterns with `*` and `?`, separated by commas; a match of one that
    begins with `!` overrides all others.
    """
    matched = False
    for pattern in host_pattern.lower().split(","):
        negated = pattern.startswith("!")
        if any(matches(pattern[negated:], name) for name in names):
            if negated:
                return False
            matched = True
    return matched


def check_host_trust(
    trust: HostTrust | None, endpoint: str, port: int, machine: MachineName
) -> str:
    """Return the public key line of the authority that signs the endpoint's host key.

    The key itself is checked by :func:`dcs_proxy.ssh.certificates.parse_authority`.  Raises
    Untrusted if there is no host trust, or none that covers the endpoint.
    """
    if trust is None:
        raise Untrusted(
            "the API sent no host trust, so the gateway's identity cannot be verified",
            hint="try again; if this persists, report it to the service's support",
            machine=machine,
        )
    if trust.kind != "cert_authority":
        raise Untrusted(
            f"the API sent host trust of the unknown kind {quote_server(trust.kind)}",
            hint="a newer dcs-proxy may support it",
            machine=machine,
        )
    pattern = trust.host_pattern
    names = (endpoint, f"[{endpoint}]:{port}")  # as in known_hosts, without and with the port
    if not _HOST_PATTERN.match(pattern) or not covers(pattern, *names):
        raise Untrusted(
            f"the API's host trust for {quote_server(pattern)} does not cover the "
            f"endpoint {endpoint}",
            hint="no connection was made; report it to the service's support",
            machine=machine,
        )
    return trust.public_key
