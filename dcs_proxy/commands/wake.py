"""``dcs-proxy wake HOST...``: wake machines and make the next ssh to each of them warm.

The exit code is that of the first machine, in the order given, that failed; 0 if none did.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.app import (
    ApiFactory,
    Options,
    open_context,
    open_factory,
    open_fast_entry,
    open_known,
    open_lookup,
)
from dcs_proxy.commands._batch import Batch
from dcs_proxy.commands._machines import (
    add_host_arguments,
    list_machines,
    select_machines,
    show_unlisted,
    usable_names,
)
from dcs_proxy.console.progress import Progress
from dcs_proxy.console.stderr import show
from dcs_proxy.errors import ClientGone, MachineNotFound, attribute_errors_to
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName, parse_machine_name
from dcs_proxy.publish.includes import remove_broken
from dcs_proxy.publish.publish import first_address, publish_session
from dcs_proxy.session.context import Context
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.lookup import Lookup, names_of, resolve_typed
from dcs_proxy.session.records import NEVER, Record

HELP = "wake machines, eight at a time"
DESCRIPTION = (
    "Wake machines, eight at a time, and create their sessions, so that the next ssh to each "
    "connects at once. After Ctrl-C the machines continue to wake, and the next ssh or wake "
    "resumes. The exit code is that of the first machine that failed, in the order given."
)
EXAMPLES = (
    ("Some, by name and by pattern", "dcs-proxy wake dm-foo 'dm-ci-*'"),
    ("All of the account", "dcs-proxy wake --all"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    add_host_arguments(parser, "every machine of the account")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Wake the machines.  Raises DcsError if the arguments do not say which."""
    settings = options.settings(os.environ)
    state = StateDirectory(options.state_directory(os.environ))
    factory = open_factory(options, os.environ, settings)
    lookup = Lookup(settings, factory.known, lambda: list_machines(factory, state))
    typed = select_machines(
        arguments, settings, lambda: _all_names(factory, state), lookup.find, hint="dcs-proxy list"
    )
    if not typed:
        show("dcs-proxy: the account has no machines")
        return 0
    remove_broken(state)
    credentials = factory.find_credentials(Deadline(settings.wake_seconds))
    names = list(typed)
    batch = Batch(names, _Waker(options, settings, credentials, typed).wake)
    try:
        code = batch.run()
        show_unlisted(factory.known.load().by_name, settings, state.path)
        return code
    except KeyboardInterrupt:
        left = [name for name in names if name not in batch.outcomes]
        show(f"dcs-proxy: {_interrupted(state, left)}")
        return ClientGone.exit_code


def _all_names(factory: ApiFactory, state: StateDirectory) -> list[MachineName]:
    """Return the account's machines.  Raises MachineNotFound if it has none that can be used."""
    listing = list_machines(factory, state)
    names = usable_names(listing)
    if listing.unusable and not names:
        raise MachineNotFound(
            "ssh cannot name any of the account's machines", hint="dcs-proxy list says why"
        )
    return names


class _BatchProgress(Progress):
    """Passes lines about one of many machines on to `notice` of the batch, which shows them."""

    def __init__(self, notice: Callable[[str], None]) -> None:
        super().__init__(is_quiet=False, in_place=False)
        self._notice = notice

    def notice(self, text: str) -> None:
        self._notice(text)


class _Waker:
    """Wakes machines, in several threads at once; `typed` has what the user typed for each."""

    def __init__(
        self,
        options: Options,
        settings: Settings,
        credentials: Credentials,
        typed: Mapping[MachineName, str],
    ) -> None:
        # The fast entry must match the command line of ssh's block, which names the config file.
        self._options = replace(options, config=options.config_file(os.environ))
        self._settings = settings
        self._credentials = credentials
        self._typed = typed
        self._writing = threading.Lock()

    def wake(
        self, name: MachineName, notice: Callable[[str], None], is_stopping: Callable[[], bool]
    ) -> str:
        """Make the machine ready and the next ssh to it warm; return how long that took."""
        start = time.monotonic()
        with attribute_errors_to(name):
            context = self._open_context(notice, is_stopping)
            found, record = resolve_typed(self._typed[name], context, open_lookup(context))
            self._publish(found, self._typed[name], record, context)
        return f"ready after {time.monotonic() - start:.1f} s"

    def _open_context(
        self, notice: Callable[[str], None], is_stopping: Callable[[], bool]
    ) -> Context:
        # The user asks for a wake, so no policy forbids it, and the API must confirm each session.
        settings = replace(self._settings, wake=(), reuse_seconds=0)
        return open_context(
            self._options, os.environ, is_stopping, settings=settings,
            progress=_BatchProgress(notice), credentials=self._credentials,
        )  # fmt: skip

    def _publish(self, name: MachineName, typed: str, record: Record, context: Context) -> None:
        address = first_address(record, context)
        known = open_known(self._options, os.environ, self._settings).load()
        hosts = names_of(name, self._settings, known) | {parse_machine_name(typed)}
        fast_entry = open_fast_entry(self._options, os.environ, self._settings, context.state)
        # Some of these files are the same for all machines.
        with self._writing:
            publish_session(
                sorted(hosts), name, record, context, fast_entry,
                user_agent=os.environ.get("SSH_AUTH_SOCK", ""), address=address,
            )  # fmt: skip


def _interrupted(state: StateDirectory, left: list[MachineName]) -> str:
    """Describe the state of the machines that were not ready when the user interrupted."""
    waking = sum(1 for name in left if _is_waking(state.load(name)))
    parts = []
    if waking:
        them = "it" if waking == 1 else "them"
        parts.append(f"{waking} still waking (the next ssh resumes {them})")
    if rest := len(left) - waking:
        parts.append(f"{rest} not started")
    return f"interrupted: {', '.join(parts)}" if parts else "interrupted"


def _is_waking(record: Record | None) -> bool:
    """Return whether the API has been asked for a session that no login has succeeded with yet."""
    if record is None or not record.attempt.session_id or record.ends_at() < time.time():
        return False
    return record.ready is None or record.ready.proved_at == NEVER
