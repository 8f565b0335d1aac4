"""``dcs-proxy HOST PORT``: what ssh runs as its ProxyCommand.

The gateway's address is the session's; the port that ssh names is not used.  LastFailure go to
stderr and, because that is thrown away under ControlPersist, through ssh as a disconnect message.
"""

from __future__ import annotations

import argparse
import os
import socket

from dcs_proxy.app import Options, open_context, open_fast_entry, open_lookup
from dcs_proxy.errors import DcsError, LoginMismatch, UsageError, attribute_errors_to
from dcs_proxy.local.log import milliseconds_since
from dcs_proxy.names import MachineName
from dcs_proxy.publish.includes import publish
from dcs_proxy.session.context import Context
from dcs_proxy.session.lookup import resolve_typed
from dcs_proxy.session.next_step import Half
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.disconnect import send_disconnect
from dcs_proxy.ssh.handover import become_relay, client_gone, hand_over, is_fdpass
from dcs_proxy.ssh.tunnel import reach

DESCRIPTION = (
    "Connect ssh with the machine's gateway, as its ProxyCommand. The block that config-ssh writes "
    "runs this; you need it only in a config of your own."
)
EXAMPLES = (
    ("Relay, where the block has the socket handed over",
     "ssh -o ProxyUseFdpass=no -o ProxyCommand='dcs-proxy --relay %h %p' dm-foo"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the ProxyCommand form."""
    parser.add_argument("host", metavar="HOST", help="the machine's name or an alias")
    parser.add_argument("port", metavar="PORT", help="as ssh gives it; the session's port is used")
    parser.add_argument(
        "--login", metavar="USER", help="the login name that ssh will use (%%r), to be checked"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--relay", action="store_true", help="relay stdin and stdout, never hand over")
    how.add_argument(
        "--fdpass", action="store_true", help="hand the connected socket over (ProxyUseFdpass)"
    )


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Connect stdin and stdout, or the ssh behind them, to the machine's gateway.

    Raises DcsError, after it has been sent through ssh.
    """
    fdpass = not arguments.relay and (arguments.fdpass or is_fdpass())
    try:
        with attribute_errors_to(arguments.host):
            if not arguments.port.isdigit():
                raise UsageError("PORT must be a number", hint="dcs-proxy --help")
            return _connect(arguments, options, fdpass)
    except DcsError as error:
        send_disconnect(error.one_line(), fdpass=fdpass)
        raise


def _connect(arguments: argparse.Namespace, options: Options, fdpass: bool) -> int:
    settings = options.settings(os.environ)
    context = open_context(options, os.environ, client_gone, settings=settings)
    lookup = open_lookup(context)
    name, record = resolve_typed(arguments.host, context, lookup, Half.CONNECT)
    files = publish(context.state, arguments.host, name, record)
    if arguments.login is not None:
        check_login(arguments.login, arguments.host, record)
    sock = _dial(record, context)
    context.log.event(
        "connected", machine=name, session=record.attempt.session_id, fdpass=fdpass,
        address=sock.getpeername()[0], ms=milliseconds_since(),
    )  # fmt: skip
    fast_entry = open_fast_entry(options, os.environ, settings, context.state)
    fast_entry.write(arguments.host, record, files, address=sock.getpeername()[0])
    if not fdpass:
        become_relay(sock, arguments.host, context.state.path)
    hand_over(sock)
    return 0


def _dial(record: Record, context: Context) -> socket.socket:
    ready = record.ready
    if ready is None:
        raise ValueError("only a ready session has an endpoint")
    return reach(
        context.settings.proxy_to(ready.endpoint),
        ready.endpoint,
        ready.port,
        timeout_s=context.settings.connect_seconds,
        deadline=context.deadline.at,
        client_gone=client_gone,
    )


def check_login(login: str, host: str, record: Record) -> None:
    """Raise LoginMismatch if ssh is about to log in as somebody else than the session's user.

    The login of the session before counts too: it may have been replaced after ssh had read it.
    """
    ready = record.ready
    if ready is None or login in (ready.ssh_username, record.previous_username):
        return
    raise LoginMismatch(
        f"ssh is about to log in as {login}, but this session's login is {ready.ssh_username}",
        hint=f"type: ssh {host} (no user name before it, no -l, and no User line for {host} "
        "above the dcs-proxy block in your ssh config)",
        machine=MachineName(host),
    )
