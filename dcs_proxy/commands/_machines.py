"""What several commands do with machines: select them by arguments, and list the account's."""

from __future__ import annotations

import argparse
import os
import shlex
import time
from collections.abc import Callable, Collection, Iterable, Sequence

from dcs_proxy.api.model import Listing
from dcs_proxy.app import ApiFactory, show_notice
from dcs_proxy.errors import ConfigError, MachineNotFound, StateError, UsageError
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, fold_host, natural_order, pattern_means, short_names
from dcs_proxy.openssh import config_file
from dcs_proxy.openssh.config_text import listed_hosts
from dcs_proxy.session.directory import StateDirectory, read_ssh_configs
from dcs_proxy.session.records import NEVER
from dcs_proxy.text import quote_server, quote_typed

_LIST_S = 30.0
# ssh reads this many Host lines on every start, and editors show them.
_MAX_LISTED = 2_000
_MAX_SHOWN = 20


def add_host_arguments(parser: argparse.ArgumentParser, all_means: str) -> None:
    """Declare HOST... and ``--all``; `all_means` is the help of ``--all``."""
    parser.add_argument(
        "hosts",
        metavar="HOST",
        nargs="*",
        help="a name, a short name, an alias, or a pattern of them with * and ? in quotation marks",
    )
    parser.add_argument("--all", action="store_true", help=all_means)


def select_machines(
    arguments: argparse.Namespace,
    settings: Settings,
    list_known: Callable[[], Sequence[MachineName]],
    find: Callable[[str], MachineName],
    *,
    hint: str,
) -> dict[MachineName, str]:
    """Return the machines that the arguments select, with the name that the user typed for each.

    For a machine selected by a pattern or ``--all`` that is its full name.  `list_known` returns
    the machines that these can match, and is called only for them; `find` returns the machine of a
    name.  `hint` is the command that shows the machines.  Raises UsageError, MachineNotFound for a
    pattern without a match, or what `find` raises.
    """
    if arguments.all and arguments.hosts:
        raise UsageError("give either --all or the names of machines, not both", hint=hint)
    if not (arguments.all or arguments.hosts):
        raise UsageError("name the machines, or use --all", hint=hint)
    if arguments.all:
        return {name: name for name in list_known()}
    patterns = [host for host in arguments.hosts if "*" in host or "?" in host]
    known = list_known() if patterns else []
    short = short_names(known, settings.aliases)
    found: dict[MachineName, str] = {}
    for host in arguments.hosts:
        if host not in patterns:
            found.setdefault(find(host), host)
            continue
        pattern = fold_host(host)
        matched = [
            name for name in known
            if pattern_means(pattern, name, [short[name], *settings.aliases_of(name)])
        ]  # fmt: skip
        if not matched:
            raise MachineNotFound(f"no machine matches {quote_typed(host)}", hint=hint)
        for name in matched:
            found.setdefault(name, name)
    return found


def list_machines(factory: ApiFactory, state: StateDirectory) -> Listing:
    """Return the account's machines, in natural order; save their names for completion.

    Raises as :class:`dcs_proxy.api.client.Api` does, and CredentialsError.
    """
    listing = factory.open(Deadline(_LIST_S)).list_machines()
    names = usable_names(listing)
    short = short_names(names, factory.settings.aliases).values()
    try:
        _expire_sleeping(listing, state, factory.settings)
        aliases = map(MachineName, factory.settings.aliases)
        state.save_machines(natural_order({*names, *short, *aliases}))
    except StateError as error:
        factory.log.event("list-not-saved", what=error.message)
    return listing


def _expire_sleeping(listing: Listing, state: StateDirectory, settings: Settings) -> None:
    """Require the API to confirm the sessions of machines that are not awake."""
    for machine in listing.machines:
        record = None if machine.is_awake else state.load(machine.name)
        if record is not None and record.ready is not None and record.ready.proved_at != NEVER:
            state.expire(machine.name, record, time.time() - settings.reuse_seconds)


def usable_names(listing: Listing) -> list[MachineName]:
    """Return the names of the machines that are not being destroyed."""
    return [machine.name for machine in listing.machines if not machine.is_going]


def names_to_list(names: Iterable[MachineName], settings: Settings) -> list[MachineName]:
    """Return the names to list in the ssh config, of machines that the setting `listed` selects.

    These are all aliases, and the shortest names of at most `_MAX_LISTED` machines without one.
    """
    short = short_names(list(names), settings.aliases)
    own = natural_order(
        short[name]
        for name in short
        if not settings.aliases_of(name) and is_listed(name, settings, short[name])
    )
    return natural_order({*own[:_MAX_LISTED], *aliases_to_list(settings)})


def aliases_to_list(settings: Settings) -> list[MachineName]:
    """Return the aliases of the machines that the setting `listed` selects."""
    aliases = settings.aliases.items()
    return [MachineName(alias) for alias, name in aliases if is_listed(name, settings)]


def is_listed(name: MachineName, settings: Settings, *more: MachineName) -> bool:
    """Return whether the setting `listed` selects a machine, by its name, an alias or `more`."""
    known = [*settings.aliases_of(name), *more]
    return any(pattern_means(pattern, name, known) for pattern in settings.listed)


def show_unusable(listing: Listing) -> None:
    """Show the user which machines ssh cannot name, and why."""
    for machine in listing.unusable[:_MAX_SHOWN]:
        show_notice(
            f"ssh cannot name the machine {quote_server(machine.machine_id)}: {machine.why}"
        )
    if more := len(listing.unusable[_MAX_SHOWN:]):
        show_notice(f"ssh cannot name {more} more machines")


def show_unlisted(names: Collection[MachineName], settings: Settings, state_directory: str) -> None:
    """Tell the user how many of the machines `names` are not listed in an ssh config of theirs.

    A file without our block, or one that cannot be read, is skipped.
    """
    short = short_names(names, settings.aliases)
    wanted = {
        name: settings.aliases_of(name) or [short[name]]
        for name in names
        if is_listed(name, settings, short[name])
    }
    default = os.path.expanduser(config_file.DEFAULT_PATH)
    for path in dict.fromkeys([default, *read_ssh_configs(state_directory)]):
        listed = read_listed(path)
        if listed is None or len(listed) >= _MAX_LISTED:
            continue
        if count := sum(not listed.issuperset(hosts) for hosts in wanted.values()):
            noun = "machine is" if count == 1 else "machines are"
            where, option = "your ssh config", ""
            if path != default:
                where, option = path, f" --ssh-config {shlex.quote(path)}"
            show_notice(f"{count} {noun} not listed in {where}: run dcs-proxy config-ssh{option}")


def read_listed(path: str) -> set[str] | None:
    """Return the hosts that our block in an ssh config lists; None if there is no valid block."""
    try:
        top = config_file.read_blocks(path).top
    except ConfigError:
        return None
    return None if top is None else set(listed_hosts(top.decode("utf-8", "replace")))
