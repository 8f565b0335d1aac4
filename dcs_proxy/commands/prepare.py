"""``dcs-proxy prepare HOST``: the Match exec that ssh runs while it reads its configuration.

Exit code 0 means that the files that ssh includes next are up to date.  ssh discards stdout and
shows stderr.
"""

from __future__ import annotations

import contextlib
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from dcs_proxy.app import Options, explaining_bugs, open_context, open_fast_entry, open_lookup
from dcs_proxy.commands._login import is_known_login, not_woken_for, refuse_bypass, refuse_host_name
from dcs_proxy.console.stderr import is_discarded
from dcs_proxy.errors import ClientGone, DcsError, NotWoken, attribute_errors_to
from dcs_proxy.fastpath.helper import NOT_EXPANDED
from dcs_proxy.local.log import milliseconds_since
from dcs_proxy.names import fold_host, machine_name, parse_machine_name
from dcs_proxy.openssh.parent import client_id, is_known, is_ssh, typed_login, wants_session
from dcs_proxy.publish.fast_entry import remove_fast_entry
from dcs_proxy.publish.includes import remove_broken
from dcs_proxy.publish.publish import first_address, publish_session
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.first_half import FirstHalf
from dcs_proxy.session.lookup import resolve_typed

if TYPE_CHECKING:
    import argparse

DESCRIPTION = (
    "Wake the machine, create a session, add its certificate to the agent and write the files "
    "that ssh includes. The block in the ssh config runs this (Match exec); run it yourself for a "
    "client that does not support Match exec."
)
EXAMPLES = (("Make a session ready for a client that cannot", "dcs-proxy prepare dm-foo"),)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("host", metavar="HOST", help="the machine's name or an alias")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Make the machine's session ready and write what ssh includes.  Raises DcsError."""
    parent = os.getppid()
    if arguments.host == NOT_EXPANDED:
        return 1
    if not wants_session(parent):
        # ssh reads the included files even so.
        remove_broken(StateDirectory(options.state_directory(os.environ)))
        return 0
    # ssh reads its configuration for the name as typed.
    host = fold_host(arguments.host)
    if not is_ssh(parent):
        try:
            with attribute_errors_to(host):
                return _prepare(host, options, parent)
        except NotWoken:
            if is_known(parent):
                raise
            return 1
    first_half = FirstHalf(options.state_directory(os.environ), client_id(parent))
    first_half.check(is_last=False)
    try:
        with attribute_errors_to(host), explaining_bugs(options):
            return _prepare(host, options, parent)
    except ClientGone:
        raise
    except DcsError as error:
        _leave_to_full_program(host, options)
        if not is_discarded():
            first_half.save_failure(error)
        raise


def _leave_to_full_program(host: str, options: Options) -> None:
    """Let the ProxyCommand of this ssh, which comes next, run the full program.

    A fast connection would be one that ssh cannot verify: it has not read the included files.
    """
    if (name := machine_name(host)) is not None:
        with contextlib.suppress(DcsError):  # it must not hide the first error
            remove_fast_entry(StateDirectory(options.state_directory(os.environ)), name)


def _prepare(host: str, options: Options, parent: int) -> int:
    settings = options.settings(os.environ)
    state = StateDirectory(options.state_directory(os.environ))
    remove_broken(state)
    refuse_bypass(parent, host)
    if is_ssh(parent):
        refuse_host_name(host, parent)
    login = typed_login(parent)
    is_refused = login is not None and not is_known_login(login, state)
    # If its command line cannot be read, it may be ssh -G.  If not, its ProxyCommand will wake.
    may_wake = is_known(parent) and not is_refused
    # Because of `exec` in the Match line our parent is ssh itself; when it exits, we get another.
    context = open_context(
        options, os.environ, lambda: os.getppid() != parent,
        settings=settings if may_wake else replace(settings, wake=(("*", "never"),)),
    )  # fmt: skip
    try:
        name, record = resolve_typed(host, context, open_lookup(context))
    except NotWoken:
        if login is None or not is_refused:
            raise
        raise not_woken_for(login, host) from None
    publish_session(
        [parse_machine_name(host)],
        name,
        record,
        context,
        open_fast_entry(options, os.environ, settings, context.state),
        user_agent=os.environ.get("SSH_AUTH_SOCK", ""),
        address=first_address(record, context),
    )
    session = record.attempt.session_id
    context.log.event("prepared", machine=name, session=session, ms=milliseconds_since())
    if os.isatty(0) or os.isatty(1):  # typed by a user: ssh gives us the null device
        context.notice(f"{name}: ready; ssh runs this command by itself, so type: ssh {name}")
    return 0
