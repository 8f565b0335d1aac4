"""``dcs-proxy dial NAME PORT``: connect to a gateway, without a session.

If the config file names a proxy, publish/guest.py uses this as the ProxyCommand of the short ssh
that checks whether a machine that has just woken accepts logins.
"""

from __future__ import annotations

import argparse
import os
import time

from dcs_proxy.api.model import parse_endpoint
from dcs_proxy.app import Options
from dcs_proxy.bridge.choose import check_descriptors
from dcs_proxy.errors import UsageError
from dcs_proxy.fastpath.helper import is_fdpass
from dcs_proxy.ssh.handover import client_gone, hand_over
from dcs_proxy.ssh.tunnel import reach
from dcs_proxy.text import quote_server

DESCRIPTION = (
    "Connect to a gateway through the proxy in the config file and pass the socket to ssh "
    "(ProxyUseFdpass). The short ssh that waits until a woken machine accepts a login runs this."
)
EXAMPLES = (
    ("As the ProxyCommand of an ssh to the gateway itself",
     "ssh -o ProxyUseFdpass=yes -o ProxyCommand='dcs-proxy dial %h %p' ssh.dedaluslabs.ai"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("host", metavar="NAME", help="the gateway's name or address")
    parser.add_argument("port", metavar="PORT", type=int, help="its port")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Connect, and hand the socket over to ssh.

    Raises UsageError, GatewayUnreachable or ClientGone.
    """
    check_descriptors()
    if not is_fdpass():
        raise UsageError(
            "dial needs a socket from ssh as stdin and stdout",
            hint="write ProxyUseFdpass yes beside the ProxyCommand",
        )
    if parse_endpoint(arguments.host) is None or not 1 <= arguments.port <= 65535:
        raise UsageError(
            f"{quote_server(arguments.host)} port {arguments.port} is not the address of a gateway",
            hint="dcs-proxy dial --help",
        )
    settings = options.settings(os.environ)
    sock = reach(
        settings.proxy_to(arguments.host),
        arguments.host,
        arguments.port,
        timeout_s=settings.connect_seconds,
        deadline=time.monotonic() + settings.wake_seconds,
        client_gone=client_gone,
    )
    hand_over(sock)
    return 0
