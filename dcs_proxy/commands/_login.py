"""Check what ssh's command line must not set: another login name, or a route around us."""

from __future__ import annotations

import os

from dcs_proxy.errors import LoginMismatch, UsageError
from dcs_proxy.names import PREFIX, MachineName, is_machine_name
from dcs_proxy.openssh.ancestors import is_run_by_ansible
from dcs_proxy.openssh.parent import typed_bypass, typed_host
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import Record
from dcs_proxy.text import clean_text, quote_typed

_MAX_SHOWN = 80


def check_login(login: str, host: str, record: Record, *, was_prepared: bool) -> None:
    """Raise LoginMismatch if ssh is about to log in under a name other than the session's.

    `was_prepared` says that `prepare` could know that this ssh would log in.
    """
    ready = record.ready
    if ready is not None and login not in record.logins:
        if not was_prepared:
            raise LoginMismatch(
                "this ssh started before the session existed, so it has the wrong login name",
                hint=f"the machine is awake now; type again: ssh {host}",
                machine=MachineName(host),
            )
        raise _mismatch(login, host, f"but this session's login is {ready.ssh_username}")


def refuse_bypass(parent: int, host: str) -> None:
    """Raise UsageError if the command line of the ssh `parent` bypasses our ProxyCommand.

    ssh, or its jump host, would look up the machine's name, which no resolver knows.
    """
    jump = typed_bypass(parent)
    if jump is None:
        return
    how = f"through {clean_text(jump, _MAX_SHOWN) or '?'}" if jump else "directly"
    hint = "leave out -J, ProxyJump and ProxyCommand"
    if is_run_by_ansible(parent):
        hint = (
            "leave ProxyJump and ProxyCommand out of this host's ansible_ssh_common_args, "
            "ansible_ssh_extra_args and ansible_ssh_args"
        )
    raise UsageError(
        f"ssh is about to connect {how} and not through dcs-proxy, so it cannot reach the machine",
        hint=hint,
        machine=host,
    )


def refuse_host_name(host: str, parent: int) -> None:
    """Raise UsageError if HostName has replaced the machine's name, for which our block is.

    `host` is the name with which the ssh `parent` runs us, after fold_host().
    """
    typed = typed_host(parent)
    is_ours = host.startswith(PREFIX) and "." not in host and ":" not in host
    if is_ours and typed is not None and is_machine_name(typed) and typed != host:
        raise UsageError(
            f"HostName makes ssh connect {quote_typed(typed)} to {host}, which has another session",
            hint=f"type: ssh {host}; or remove that HostName, and for a name of your own type: "
            f"dcs-proxy alias NAME {host}",
        )
    if is_ours:
        return
    raise UsageError(
        f"HostName makes ssh connect to {quote_typed(host)}, which is not the name of a machine",
        hint="remove HostName for dm- hosts from the ssh config above the dcs-proxy block, or from"
        " the command line; dcs-proxy doctor shows the line",
    )


def is_known_login(login: str, state: StateDirectory) -> bool:
    """Return whether any machine's session has this login name: all sessions may have the same."""
    records = map(state.load, state.machines())
    return any(record is not None and login in record.logins for record in records)


def not_woken_for(login: str, host: str) -> LoginMismatch:
    """Return the error for a machine that was not woken because the login would be refused."""
    return _mismatch(
        login, host, "but only the session's own login works; the machine was not woken"
    )


def _mismatch(login: str, host: str, why: str) -> LoginMismatch:
    shown = f"as {clean_text(login, _MAX_SHOWN) or '?'}" if login else "with an empty user name"
    hint = (
        f"type: ssh {host} (no user name before it, no -l, and no User line for {host} "
        "above the dcs-proxy block in your ssh config)"
    )
    if is_run_by_ansible(os.getppid()):
        hint = (
            f'set ansible_user: "" for {host}: it overrides remote_user, -u and the ansible_user '
            "of a group"
        )
    return LoginMismatch(
        f"ssh is about to log in {shown}, {why}", hint=hint, machine=MachineName(host)
    )
