"""The check of Ansible's configuration, which overrides the block in the ssh config."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator

from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import Check, failed
from dcs_proxy.local.files import read_small

_VARIABLE = "ANSIBLE_HOST_KEY_CHECKING"
# The words that mean false to Ansible.
_FALSE = ("false", "no", "n", "0", "off", "f")
_SETTING = re.compile(rb"^[ \t]*host_key_checking[ \t]*=[ \t]*(\w+)", re.MULTILINE | re.IGNORECASE)


def check_ansible(context: Context) -> Check | None:
    """Check whether Ansible disables host key checking; return None if it does not.

    It adds ``-o StrictHostKeyChecking=no`` to ssh's command line, which overrides any config file.
    """
    where = next(_find_disabled(context), None)
    if where is None:
        return None
    return failed(
        f"{where} turns host key checking off: ssh would accept an impostor's gateway",
        "remove it: machines need no entry in known_hosts",
    )


def _find_disabled(context: Context) -> Iterator[str]:
    """Yield the places that disable it, in the order in which Ansible reads them."""
    if (value := context.environment.get(_VARIABLE)) is not None:
        if value.lower() in _FALSE:
            yield _VARIABLE
        return
    chosen = context.environment.get("ANSIBLE_CONFIG")
    home = os.path.expanduser("~/.ansible.cfg")
    for path in [chosen] if chosen else ["ansible.cfg", home, "/etc/ansible/ansible.cfg"]:
        data = read_small(path, of_others=True)
        if data is None:
            continue
        found = _SETTING.findall(data)
        if found and found[-1].decode().lower() in _FALSE:
            yield f"host_key_checking in {os.path.abspath(path)}"
        return  # Ansible reads one file only
