"""The account's machines: listed within a time limit, and their names saved for completion."""

from __future__ import annotations

from collections.abc import Iterable

from dcs_proxy.api.model import Listing
from dcs_proxy.app import ApiFactory, show_notice
from dcs_proxy.errors import StateError, quote_server
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, short_names
from dcs_proxy.session.directory import StateDirectory

_LIST_S = 30.0


def list_machines(factory: ApiFactory, state: StateDirectory) -> Listing:
    """Return the account's machines, sorted by name; save their names and the aliases.

    Raises as :class:`dcs_proxy.api.client.Api` does, and CredentialsError.
    """
    listing = factory.open(Deadline(_LIST_S)).list_machines()
    names = usable_names(listing)
    short = short_names(names, factory.settings.aliases).values()
    try:
        state.save_machines(sorted({*names, *short, *map(MachineName, factory.settings.aliases)}))
    except StateError as error:
        factory.log.event("list-not-saved", what=error.message)
    return listing


def usable_names(listing: Listing) -> list[MachineName]:
    """Return the names of the machines that are not being destroyed."""
    return [machine.name for machine in listing.machines if not machine.is_going]


def show_unusable(listing: Listing) -> None:
    """Tell the user of machines that ssh cannot name, and why."""
    for machine in listing.unusable:
        show_notice(
            f"ssh cannot name the machine {quote_server(machine.machine_id)}: {machine.why}"
        )


def names_to_list(names: Iterable[MachineName], settings: Settings) -> list[MachineName]:
    """Return the names under which the ssh config lists machines: all aliases, and the shortest
    name of each machine without one.
    """
    short = short_names(list(names), settings.aliases)
    own = {short[name] for name in short if not settings.aliases_of(name)}
    return sorted({*own, *map(MachineName, settings.aliases)})
