"""The account's machines: asked for under a deadline, and their names noted for completion."""

from __future__ import annotations

import os

from dcs_proxy.api.model import Machine
from dcs_proxy.app import ApiFactory
from dcs_proxy.errors import StateError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.log import Log
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory

_LIST_S = 30.0


def list_machines(settings: Settings, state: StateDirectory, log: Log) -> list[Machine]:
    """Return the account's machines by name; note their names and the aliases for completion.

    Raises as :class:`dcs_proxy.api.client.Api` does, and CredentialsError.
    """
    api = ApiFactory(settings, os.environ, log).open(Deadline(_LIST_S))
    machines = sorted(api.list_machines(), key=lambda machine: machine.machine_id)
    names = {machine.machine_id for machine in machines if not machine.is_going}
    try:
        state.save_machines(sorted({*names, *map(MachineName, settings.aliases)}))
    except StateError as error:
        log.event("list-not-saved", what=error.message)
    return machines
