"""``dcs-proxy wake HOST...``: wake machines and make the next ssh to each of them warm.

Exit code: 0 if all are ready, else that of the first machine, in the order given, that is not.
"""

from __future__ import annotations

import argparse
import os
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from dcs_proxy.api.credentials import Credentials
from dcs_proxy.app import ApiFactory, Options, open_context, open_fast_entry, open_log
from dcs_proxy.commands import selection
from dcs_proxy.commands._batch import Batch
from dcs_proxy.commands.listing import list_machines
from dcs_proxy.console.progress import Progress
from dcs_proxy.console.stderr import show
from dcs_proxy.errors import ClientGone, attribute_errors_to
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.local.settings import Settings
from dcs_proxy.names import MachineName
from dcs_proxy.publish.includes import remove_broken
from dcs_proxy.publish.publish import first_address, publish_session
from dcs_proxy.session.context import Context
from dcs_proxy.session.directory import StateDirectory
from dcs_proxy.session.records import NEVER, Record
from dcs_proxy.session.resolve import resolve

HELP = "wake machines, many at once, so that ssh to them begins at once"
DESCRIPTION = (
    "Make machines ready, eight at a time, so that the next ssh to each begins at once. Ctrl-C "
    "leaves wakes running, and the next ssh or wake takes them up. The exit code is that of the "
    "first machine, in the order given, that failed."
)
EXAMPLES = (
    ("Some, by name and by pattern", "dcs-proxy wake dm-foo 'dm-ci-*'"),
    ("All of the account", "dcs-proxy wake --all"),
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    selection.add_arguments(parser, "every machine of the account")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Wake the machines.  Raises DcsError if it cannot be told which."""
    settings = options.settings(os.environ)
    state = StateDirectory(options.state_directory(os.environ))
    log = open_log(options, os.environ)

    def list_known() -> list[MachineName]:
        return [m.machine_id for m in list_machines(settings, state, log) if not m.is_going]

    names = selection.select(arguments, settings, list_known, hint="dcs-proxy list")
    if not names:
        show("dcs-proxy: the account has no machines")
        return 0
    remove_broken(state)
    factory = ApiFactory(settings, os.environ, log)
    credentials = factory.find_credentials(Deadline(settings.wake_seconds))
    many = Batch(names, _Waker(options, settings, credentials).wake)
    try:
        return many.run()
    except KeyboardInterrupt:
        left = [name for name in names if name not in many.outcomes]
        show(f"dcs-proxy: {_interrupted(state, left)}")
        return ClientGone.exit_code


class _Told(Progress):
    """Passes on what there is to show, for one of many machines."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        super().__init__(is_quiet=False, in_place=False)
        self._tell = tell

    def notice(self, text: str) -> None:
        self._tell(text)


class _Waker:
    """Wakes one machine after the other, in several threads at once."""

    def __init__(self, options: Options, settings: Settings, credentials: Credentials) -> None:
        # ssh names the config file on our command line, wherever that comes from here.
        self._options = replace(options, config=options.config_file(os.environ))
        self._settings = settings
        self._credentials = credentials
        self._writing = threading.Lock()

    def wake(
        self, name: MachineName, notice: Callable[[str], None], is_stopping: Callable[[], bool]
    ) -> str:
        """Make the machine ready and the next ssh to it warm; say how long that took."""
        begun = time.monotonic()
        with attribute_errors_to(name):
            context = self._open_context(notice, is_stopping)
            record = resolve(name, context)
            self._make_warm(name, record, context)
        return f"ready after {time.monotonic() - begun:.1f} s"

    def _open_context(
        self, notice: Callable[[str], None], is_stopping: Callable[[], bool]
    ) -> Context:
        # Asked for by a person, now: no policy forbids it, and no earlier proof is enough.
        settings = replace(self._settings, wake=(), reuse_seconds=0)
        return open_context(
            self._options, os.environ, is_stopping, settings=settings, progress=_Told(notice),
            credentials=self._credentials,
        )  # fmt: skip

    def _make_warm(self, name: MachineName, record: Record, context: Context) -> None:
        address = first_address(record, context)
        aliases = [MachineName(alias) for alias in self._settings.aliases_of(name)]
        fast_entry = open_fast_entry(self._options, os.environ, self._settings, context.state)
        # Some of these files are the same for all machines.
        with self._writing:
            publish_session(
                [name, *aliases], name, record, context, fast_entry,
                user_agent=os.environ.get("SSH_AUTH_SOCK", ""), address=address,
            )  # fmt: skip


def _interrupted(state: StateDirectory, left: list[MachineName]) -> str:
    """Say what becomes of the machines that were not ready when the user interrupted."""
    going_on = sum(1 for name in left if _is_waking(state.load(name)))
    parts = []
    if going_on:
        verb = "goes" if going_on == 1 else "go"
        parts.append(f"{going_on} {verb} on waking, and the next ssh or wake takes that up")
    if rest := len(left) - going_on:
        parts.append(f"{rest} {'was' if rest == 1 else 'were'} not begun")
    return f"interrupted: {'; '.join(parts)}" if parts else "interrupted"


def _is_waking(record: Record | None) -> bool:
    """Whether the service has been asked for the session, and nobody has been let in yet."""
    if record is None or not record.attempt.session_id or record.ends_at() < time.time():
        return False
    return record.ready is None or record.ready.proved_at == NEVER
