"""Make the next ssh to a machine warm: write the files that it reads, and look up its gateway."""

from __future__ import annotations

from collections.abc import Sequence

from dcs_proxy.errors import GatewayUnreachable
from dcs_proxy.names import MachineName
from dcs_proxy.publish.fast_entry import FastEntry
from dcs_proxy.publish.includes import mark_checked, publish, publish_user_agent
from dcs_proxy.session.context import Context
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.dial import look_up


def publish_session(
    hosts: Sequence[MachineName],
    name: MachineName,
    record: Record,
    context: Context,
    fast_entry: FastEntry,
    *,
    user_agent: str,
    address: str,
) -> None:
    """Write what ssh reads for a ready session, and its fast entries.

    `hosts` are the names that the user types for the machine.  `user_agent` is the SSH_AUTH_SOCK
    that ``ssh -A`` is to forward, "" if there is none.  `address` is the result of `first_address`.
    Call `remove_broken` before.  Raises StateError.
    """
    files = {host: publish(context.state, host, name, record) for host in hosts}
    publish_user_agent(context.state, user_agent)
    mark_checked(context.state)
    for host in hosts:
        fast_entry.write(host, record, files[host], address=address)


def first_address(record: Record, context: Context) -> str:
    """Return the gateway's address that the ProxyCommand will try first, "" if none is found.

    The warm path does not look names up.  If that address does not answer, the full program does.
    """
    if record.ready is None or context.settings.proxy_to(record.ready.endpoint):
        return ""
    limit = min(context.settings.connect_seconds, context.deadline.remaining())
    try:
        found = look_up(
            record.ready.endpoint, record.ready.port, limit, context.deadline.client_gone
        )
    except GatewayUnreachable:
        return ""
    return found[0][1][0]
