"""The list of all checks: their order, and which other checks each one needs."""

from __future__ import annotations

from dcs_proxy.doctor.ansible import check_ansible
from dcs_proxy.doctor.api import (
    check_access,
    check_api,
    check_clock,
    check_key,
    check_settings,
)
from dcs_proxy.doctor.computer import check_agent, check_python, check_shell, check_ssh, check_state
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.login import check_gateway, check_login, check_machine, check_session
from dcs_proxy.doctor.runner import Step
from dcs_proxy.doctor.ssh_config import check_block, check_permissions
from dcs_proxy.doctor.ssh_options import check_host_options, check_options
from dcs_proxy.doctor.vscode import check_vscode

COMPUTER = (
    Step("python", check_python),
    Step("ssh", check_ssh),
    Step("shell", check_shell),
    Step("settings", check_settings),
    Step("key", check_key, ("settings",)),
    Step("api", check_api, ("settings",)),
    Step("access", check_access, ("key", "api")),
    Step("clock", check_clock, ("api",)),
    Step("state", check_state),
    Step("agent", check_agent, ("settings", "state")),
    Step("ssh-config", check_permissions),
    Step("block", check_block, ("state", "ssh-config")),
    Step("options", check_options, ("ssh", "shell", "state", "block")),
    Step("vscode", check_vscode),
    Step("ansible", check_ansible),
)
MACHINE = (
    Step("machine", check_machine, ("settings",)),
    Step("session", check_session, ("machine", "access", "state", "agent")),
    Step("machine-options", check_host_options, ("session", "options")),
    Step("gateway", check_gateway, ("session",)),
    Step("login", check_login, ("gateway", "machine-options")),
)


def steps_for(host: str | None) -> tuple[Step[Context], ...]:
    """Return the checks of this computer and, if there is a `host`, of a login to it."""
    return COMPUTER + (() if host is None else MACHINE)
