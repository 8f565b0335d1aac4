"""Make the next ssh to a machine warm: all that it reads is written, and its gateway looked up."""

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
    """Write what ssh reads and relies on for a session that is ready.

    `hosts` are the names that the user types for the machine, `user_agent` the SSH_AUTH_SOCK that
    ``ssh -A`` is to forward ("" for none), `address` what `first_address` has found.  The caller
    has healed the included files before.  Raises StateError.
    """
    files = {host: publish(context.state, host, name, record) for host in hosts}
    publish_user_agent(context.state, user_agent)
    mark_checked(context.state)
    for host in hosts:
        fast_entry.write(host, record, files[host], address=address)


def first_address(record: Record, context: Context) -> str:
    """Return the address that ssh's second half is to try first, "" if none is found.

    That half has no time for a lookup; if the address does not answer, it looks for itself.
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
