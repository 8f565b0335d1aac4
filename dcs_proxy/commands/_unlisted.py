"""Tell the user when the ssh config does not list all machines."""

from __future__ import annotations

import os
from collections.abc import Collection

from dcs_proxy.app import show_notice
from dcs_proxy.errors import ConfigError
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, short_names
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import listed_hosts

_SSH_CONFIG = "~/.ssh/config"


def show_unlisted(names: Collection[MachineName], settings: Settings) -> None:
    """Say in one line how many of the machines `names` the block in ~/.ssh/config does not list.

    Without a block there, or with one that cannot be read, say nothing.
    """
    try:
        text, _ = config_file.read(os.path.realpath(os.path.expanduser(_SSH_CONFIG)))
        top = config_file.parse_blocks(text or b"").top
    except ConfigError:
        return
    if top is None:
        return
    count = len(_unlisted(names, settings, set(listed_hosts(top.decode("utf-8", "replace")))))
    if count:
        noun = "machine is" if count == 1 else "machines are"
        show_notice(f"{count} {noun} not listed in your ssh config: run dcs-proxy config-ssh")


def _unlisted(
    names: Collection[MachineName], settings: Settings, listed: set[MachineName]
) -> list[MachineName]:
    short = short_names(names, settings.aliases)
    return [
        name for name in names if not listed.issuperset(settings.aliases_of(name) or [short[name]])
    ]
