"""``dcs-proxy HOST PORT``: the ProxyCommand of an SSH client.

The session has the gateway's address and port; the port on the command line is ignored.

If the client is OpenSSH, errors go to stderr, and the disconnect message refers to them.  Under
ControlPersist OpenSSH discards stderr, and other clients may do so too; then the disconnect message
contains the complete error.
"""

from __future__ import annotations

import contextlib
import os
import socket
from typing import TYPE_CHECKING

from dcs_proxy.app import (
    Options,
    explaining_bugs,
    log_failure,
    open_context,
    open_fast_entry,
    open_lookup,
)
from dcs_proxy.bridge.choose import (
    Way,
    check_descriptors,
    choose_way,
    is_openssh_line,
    read_line,
)
from dcs_proxy.bridge.library import load_paramiko
from dcs_proxy.bridge.login import login_of
from dcs_proxy.commands._login import check_login, refuse_host_name
from dcs_proxy.console.format import in_words
from dcs_proxy.console.stderr import is_discarded, show
from dcs_proxy.errors import (
    ClientGone,
    DcsError,
    LoginRefused,
    SessionFailed,
    UsageError,
    attribute_errors_to,
)
from dcs_proxy.fastpath.helper import (
    become_relay,
    checks_no_host,
    has_spoken,
    is_fdpass,
    note_use,
    waits_too_long,
)
from dcs_proxy.local.http_proxy import authority
from dcs_proxy.local.log import milliseconds_since
from dcs_proxy.names import MachineName, fold_host, machine_name
from dcs_proxy.openssh.parent import ask_options, client_id, is_known, is_ssh
from dcs_proxy.openssh.shell import check_shell_is_silent
from dcs_proxy.publish.includes import publish
from dcs_proxy.session.context import Context
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.first_half import FirstHalf
from dcs_proxy.session.lookup import resolve_typed
from dcs_proxy.session.next_step import Half
from dcs_proxy.session.records import Record
from dcs_proxy.ssh.dial import address_of
from dcs_proxy.ssh.disconnect import send_disconnect
from dcs_proxy.ssh.handover import client_gone, hand_over
from dcs_proxy.ssh.silence import check_speaks
from dcs_proxy.ssh.tunnel import reach
from dcs_proxy.text import clean_text

if TYPE_CHECKING:  # argparse and paramiko are imported only where they are used
    import argparse

    from dcs_proxy.bridge.gateway import Gateway
    from dcs_proxy.bridge.run import Bridge

DESCRIPTION = (
    "Connect an SSH client to the machine's gateway, as its ProxyCommand. OpenSSH with the block "
    "that config-ssh writes gets the connection itself. Every other client is served by a bridge: "
    "any login name works, and the client needs no password or key."
)
EXAMPLES = (
    ("Any SSH client that supports ProxyCommand (here OpenSSH without the block)",
     "ssh -F none -o ProxyCommand='dcs-proxy %h %p' "
     "-o UserKnownHostsFile=~/.ssh/dcs-proxy/known_hosts dm-foo"),
    ("Relay the connection instead of passing the socket to ssh",
     "ssh -o ProxyUseFdpass=no -o ProxyCommand='dcs-proxy --relay %h %p' dm-foo"),
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of the ProxyCommand form."""
    parser.add_argument("host", metavar="HOST", help="the machine's name or an alias")
    parser.add_argument("port", metavar="PORT", help="ignored: the session's port is used")
    parser.add_argument(
        "--login", metavar="USER", help="the login name that ssh will use (%%r), to be checked"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--bridge", action="store_true", help="log in for the client, whichever it is")
    how.add_argument(
        "--relay", action="store_true", help="relay stdin and stdout; the client itself logs in"
    )
    how.add_argument(
        "--fdpass", action="store_true", help="pass the connected socket to ssh (ProxyUseFdpass)"
    )


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Connect stdin and stdout, or the ssh behind them, to the machine's gateway.

    Raises DcsError, after it has been sent through ssh.
    """
    # Editors that run the command of our block without a shell do not remove its quotes.
    arguments.host = fold_host(arguments.host.strip("'"))
    check_descriptors(machine_name(arguments.host) or "HOST")
    arguments.login = arguments.login and arguments.login.strip("'")
    way, first = _choose(arguments, options)
    if way is Way.BRIDGE:
        return _bridge(arguments, options, first)
    fdpass = way is Way.HANDOVER and is_fdpass()
    try:
        with attribute_errors_to(arguments.host), explaining_bugs(options):
            state_directory = options.state_directory(os.environ)
            FirstHalf(state_directory, client_id(os.getppid())).check(is_last=True)
            _check_port(arguments.port)
            if arguments.fdpass and not fdpass:
                raise UsageError(
                    "--fdpass needs a socket from ssh as stdin and stdout",
                    hint="write ProxyUseFdpass yes beside the ProxyCommand, or leave out --fdpass",
                )
            is_done = _connect(arguments, options, fdpass, first)
    except ClientGone:
        if fdpass:
            # A shell that prints makes ssh exit, because it expects only our socket.
            check_shell_is_silent(os.environ)
        raise
    except DcsError as error:
        log_failure(error, options, os.environ)
        is_openssh = fdpass or is_openssh_line(first)
        send_disconnect(_report(error, arguments.host, is_openssh=is_openssh), fdpass=fdpass)
        raise
    # The client has already sent something, so it does not expect a handover.
    return 0 if is_done else _bridge(arguments, options, b"")


def _choose(arguments: argparse.Namespace, options: Options) -> tuple[Way, bytes]:
    """Return the way, and the bytes that were read from stdin to choose it.

    Set the login to that of an ssh that has read our block, and so expects the gateway: its command
    line has a ProxyCommand, which takes the place of ours.
    """
    if arguments.fdpass:
        return Way.HANDOVER, b""
    if arguments.relay:
        return Way.RELAY, b""
    if arguments.bridge:
        return Way.BRIDGE, b""
    way, first = choose_way(arguments.login)
    if way is Way.BRIDGE and arguments.login is None:
        with contextlib.suppress(DcsError):
            arguments.login = _login_in_block(options)
        if arguments.login is not None:
            return choose_way(arguments.login)
    return way, first


def _login_in_block(options: Options) -> str | None:
    """Return the login name of our ssh if it has read a session's files, else None."""
    found = ask_options(os.getppid())
    sessions = os.path.join(options.state_directory(os.environ), "sessions", "")
    is_ours = found.get("userknownhostsfile", "").strip('"').startswith(sessions)
    return found.get("user") if is_ours else None


def _report(error: DcsError, host: str, *, is_openssh: bool) -> str:
    """Show the error on stderr, once; return the text of the client's disconnect message."""
    if is_openssh and (error.was_shown or not is_discarded()):
        text = f"{clean_text(host)}: not connected; the reason is shown above"
    else:
        text = error.one_line()
    if not error.was_shown:
        show(*error.lines())
        error.was_shown = True
    return text


def _bridge(arguments: argparse.Namespace, options: Options, first: bytes) -> int:
    """Serve the client through the bridge.  Raises DcsError, which has been sent to the client."""
    bridge = _open_bridge(arguments.host, options, first)
    try:
        with attribute_errors_to(arguments.host), explaining_bugs(options):
            _check_port(arguments.port)
            context = open_context(
                options, os.environ, bridge.client_gone, progress=bridge.progress
            )
            gateway = _log_in(bridge, arguments.host, context)
    except DcsError as error:
        log_failure(error, options, os.environ)
        bridge.fail(error)
        error.was_shown = bridge.shows_reasons
        raise
    return bridge.pass_on(gateway)


def _open_bridge(host: str, options: Options, first: bytes) -> Bridge:
    """Return a bridge that answers the client.

    Raises DcsError, which has been sent to the client in an unencrypted disconnect message.
    """
    try:
        with attribute_errors_to(host), explaining_bugs(options):
            load_paramiko()
            from dcs_proxy.bridge.run import Bridge

            return Bridge(host, StateDirectory(options.state_directory(os.environ)), first)
    except DcsError as error:
        log_failure(error, options, os.environ)
        is_openssh = is_openssh_line(first or read_line())
        send_disconnect(_report(error, host, is_openssh=is_openssh), fdpass=False)
        raise


def _log_in(bridge: Bridge, host: str, context: Context) -> Gateway:
    """Log in to the gateway with the machine's session, and return it.  Raises DcsError."""
    lookup = open_lookup(context)
    name, record = resolve_typed(host, context, lookup)
    try:
        return _log_in_once(bridge, name, record, context)
    except LoginRefused:
        # The session may have been closed elsewhere since the API last called it ready.
        _doubt(name, record, context)
    name, record = resolve_typed(host, context, lookup)
    return _log_in_once(bridge, name, record, context)


def _log_in_once(bridge: Bridge, name: MachineName, record: Record, context: Context) -> Gateway:
    sock = _dial(record, context)
    address = address_of(sock)
    gateway = bridge.log_in(sock, login_of(name, record, context.log))
    context.log.event(
        "bridged", machine=name, session=record.attempt.session_id,
        client=bridge.client_version, address=address, ms=milliseconds_since(),
    )  # fmt: skip
    return gateway


def _doubt(name: MachineName, record: Record, context: Context) -> None:
    """Require the API to confirm the session in `record` before it is used again."""
    context.log.event("login-refused", machine=name, session=record.attempt.session_id)
    context.state.expire(name, record, context.now() - context.settings.reuse_seconds)


def _check_port(port: str) -> None:
    if not port.isdigit():
        raise UsageError("PORT must be a number", hint="dcs-proxy --help")


def _connect(arguments: argparse.Namespace, options: Options, fdpass: bool, first: bytes) -> bool:
    """Connect the client to the gateway; return False if the client expects no handover."""
    settings = options.settings(os.environ)
    context = open_context(options, os.environ, client_gone, settings=settings)
    lookup = open_lookup(context)
    if arguments.login is not None and is_ssh(os.getppid()):
        refuse_host_name(arguments.host, os.getppid())
        _check_not_ended(lookup.find(arguments.host), context)
    name, record = resolve_typed(arguments.host, context, lookup, Half.CONNECT)
    files = publish(context.state, arguments.host, name, record)
    if fdpass and not arguments.fdpass and has_spoken():
        return False
    if arguments.login is not None:
        check_login(arguments.login, arguments.host, record, was_prepared=is_known(os.getppid()))
    if checks_no_host(os.getppid()):
        _prove_gateway(name, record, context)
    sock = _dial(record, context)
    if waits_too_long(os.getppid()):
        _check_speaks(sock, record, context)
    address = address_of(sock)
    context.log.event(
        "connected", machine=name, session=record.attempt.session_id, fdpass=fdpass,
        address=address, ms=milliseconds_since(),
    )  # fmt: skip
    _note_use(name, context)
    fast_entry = open_fast_entry(options, os.environ, settings, context.state)
    fast_entry.write(arguments.host, record, files, address=address)
    if not fdpass:
        with contextlib.suppress(OSError):  # if the gateway has gone, the relay will notice
            sock.sendall(first)
        become_relay(sock, arguments.host, context.state.path)  # does not return
    hand_over(sock)
    return True


def _check_not_ended(name: MachineName, context: Context) -> None:
    """Raise SessionFailed if the session whose files ssh has read has ended since `prepare`.

    ssh would use that session's login with a new session, and the gateway would refuse it.
    """
    record = context.state.load(name)
    ready = record.ready if record is not None else None
    if ready is not None and ready.ends_at <= context.now():
        raise SessionFailed(
            f"the session lasted {in_words(max(1.0, ready.ends_at - ready.began_at))} and ended "
            "before ssh could log in",
            hint="try again; if this persists, report it to the service's support",
        )


def _note_use(name: MachineName, context: Context) -> None:
    try:
        note_use(context.state.use_path(name), os.getppid())
    except OSError as error:
        context.log.event("use-not-noted", machine=name, what=error.strerror)


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
        client_gone=context.deadline.client_gone,
    )


def _prove_gateway(name: MachineName, record: Record, context: Context) -> None:
    """Check the gateway's host certificate for an ssh whose command line disables that check.

    Raises Untrusted, GatewayUnreachable or ClientGone.
    """
    load_paramiko()
    from dcs_proxy.bridge.proof import prove_gateway

    prove_gateway(
        _dial(record, context),
        login_of(name, record, context.log),
        timeout_s=context.settings.connect_seconds,
        client_gone=context.deadline.client_gone,
    )
    context.log.event("gateway-proved", machine=name, session=record.attempt.session_id)


def _check_speaks(sock: socket.socket, record: Record, context: Context) -> None:
    """Raise GatewayUnreachable if the gateway is silent: ssh itself would wait for too long."""
    if (ready := record.ready) is not None:
        check_speaks(
            sock,
            lambda: _dial(record, context),
            where=authority(ready.endpoint, ready.port),
            timeout_s=context.settings.connect_seconds,
            client_gone=context.deadline.client_gone,
        )
