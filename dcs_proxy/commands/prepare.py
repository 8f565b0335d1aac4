"""``dcs-proxy prepare HOST``: what ssh runs while it reads its configuration (Match exec).

Success means that the files which ssh includes next are true.  ssh throws stdout away and shows
stderr.
"""

from __future__ import annotations

import argparse
import os

from dcs_proxy.client import wants_session
from dcs_proxy.errors import GatewayUnreachable, about
from dcs_proxy.names import MachineName
from dcs_proxy.resolve import World, resolve
from dcs_proxy.snippets import heal, mark_healed, publish, publish_user_agent
from dcs_proxy.state import Record, StateDirectory
from dcs_proxy.transport import look_up
from dcs_proxy.wiring import Options, open_warmth, open_world

HELP = "make a session ready; ssh runs this while it reads its configuration"
DESCRIPTION = (
    "Wake the machine, get a session, lend its certificate to the agent and write what ssh "
    "includes. The block that config-ssh writes runs this (Match exec); by hand it is of use for "
    "clients that cannot."
)
EXAMPLES = (("Make a session ready before a client that cannot", "dcs-proxy prepare dm-foo"),)

# asyncssh runs Match exec without expanding its tokens: there what an earlier `prepare HOST` has
# made ready is used.
_NOT_EXPANDED = "%h"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("host", metavar="HOST", help="the machine's name or an alias")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Make the machine's session ready and write what ssh includes.  Raises DcsError."""
    if arguments.host == _NOT_EXPANDED:
        heal(StateDirectory(options.state_directory(os.environ)))
        return 0
    with about(arguments.host):
        return _prepare(arguments.host, options)


def _first_address(record: Record, world: World) -> str:
    """Return the address that ssh's second half is to try first, "" if none is found.

    That half has no time for a lookup; if the address does not answer, it looks for itself.
    """
    if record.ready is None:
        return ""
    limit = min(world.settings.connect_seconds, world.deadline.remaining())
    try:
        found = look_up(record.ready.endpoint, record.ready.port, limit, world.deadline.client_gone)
    except GatewayUnreachable:
        return ""
    return found[0][1][0]


def _prepare(host: str, options: Options) -> int:
    settings = options.settings(os.environ)
    name = settings.machine(host)
    parent = os.getppid()
    # With `exec` in the Match line our parent is ssh itself; when it dies we are handed to
    # another process.
    world = open_world(options, os.environ, lambda: os.getppid() != parent, settings=settings)
    heal(world.state)
    if not wants_session(parent):
        return 0
    record = resolve(name, world)
    files = publish(world.state, MachineName(host), name, record)
    publish_user_agent(world.state, os.environ.get("SSH_AUTH_SOCK", ""))
    mark_healed(world.state)
    warmth = open_warmth(options, os.environ, settings, world.state)
    warmth.keep(MachineName(host), record, files, address=_first_address(record, world))
    return 0
