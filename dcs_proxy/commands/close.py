"""``dcs-proxy close HOST...``: end sessions, here and at the API.

Exit code: 0 if nothing is left of any, else that of the first machine, in the order given, where
something is.
"""

from __future__ import annotations

import argparse
import os
import threading
from collections.abc import Callable
from dataclasses import replace

from dcs_proxy.api.client import Api, account
from dcs_proxy.app import ApiFactory, Options, open_log
from dcs_proxy.commands import selection
from dcs_proxy.commands._batch import Batch
from dcs_proxy.commands.closing import close_session
from dcs_proxy.console.stderr import show
from dcs_proxy.errors import ClientGone, attribute_errors_to
from dcs_proxy.local.deadline import Deadline
from dcs_proxy.names import MachineName
from dcs_proxy.session.directory import StateDirectory

HELP = "end sessions and take their certificates out of the agent"
DESCRIPTION = (
    "End sessions at the API, take their certificates out of the agent and remove their files. "
    "The machine itself sleeps when nobody uses it any more. The exit code is that of the first "
    "machine, in the order given, where something is left."
)
EXAMPLES = (("Everything that is open", "dcs-proxy close --all"),)

# For one machine; a wake that is under way holds its lock for longer.
_CLOSE_S = 30.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    selection.add_arguments(parser, "every machine that has a session")


def run(arguments: argparse.Namespace, options: Options) -> int:
    """Close the sessions.  Raises DcsError if it cannot be told which."""
    settings = options.settings(os.environ)
    state = StateDirectory(options.state_directory(os.environ))
    names = selection.select(arguments, settings, state.machines, hint="dcs-proxy status")
    if not names:
        show("dcs-proxy: there are no sessions")
        return 0
    factory = ApiFactory(settings, os.environ, open_log(options, os.environ))
    many = Batch(names, _Closer(state, factory).close)
    try:
        return many.run()
    except KeyboardInterrupt:
        show(f"dcs-proxy: interrupted: {len(many.outcomes)} of {len(names)} machines are done")
        return ClientGone.exit_code


class _Closer:
    """Closes one session after the other, in several threads at once."""

    def __init__(self, state: StateDirectory, factory: ApiFactory) -> None:
        self._state = state
        self._factory = factory
        self._loading = threading.Lock()

    def close(
        self, name: MachineName, notice: Callable[[str], None], is_stopping: Callable[[], bool]
    ) -> str:
        """Close the machine's session and say so."""
        deadline = Deadline(_CLOSE_S, is_stopping)

        def open_api() -> Api:
            return replace(self._load_credentials(), notice=notice).open(deadline)

        with attribute_errors_to(name):
            session_id = close_session(
                name,
                self._state,
                account=account(self._factory.settings),
                open_api=open_api,
                deadline=deadline,
            )
        self._factory.log.event("closed", machine=name, session=session_id or "-")
        return f"session {session_id} closed" if session_id else "there was no session"

    def _load_credentials(self) -> ApiFactory:
        """Read the API key, once, and only if a machine has a session."""
        with self._loading:
            credentials = self._factory.find_credentials(Deadline(_CLOSE_S))
            self._factory = replace(self._factory, credentials=credentials)
            return self._factory
