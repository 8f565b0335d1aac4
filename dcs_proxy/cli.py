"""Parse the arguments and run the command.

Results go to stdout.  Everything else goes to stderr: a line that begins with ``dcs-proxy:``, and
a line with a hint if the user can do something.  Tracebacks are never shown; they go to the log,
without values.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from dcs_proxy.app import Options, internal_error, log_failure, open_log
from dcs_proxy.console.stderr import show
from dcs_proxy.errors import ClientGone, DcsError, ReaderGone
from dcs_proxy.local.environment import repair_home
from dcs_proxy.ssh.private_agents import end_idle_agents


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code (see errors.py)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = Options()
    repair_home(os.environ)
    try:
        parsed = _parse(words)
        options = Options(parsed.home, parsed.config)
        return _run(parsed, options)
    except KeyboardInterrupt:
        show("dcs-proxy: interrupted")
        return ClientGone.exit_code
    except ReaderGone as error:
        return error.exit_code
    except DcsError as error:
        log_failure(error, options, os.environ)
        if not error.was_shown and not isinstance(error, ClientGone):
            show(*error.lines())
        return error.exit_code
    except Exception as error:
        fault = internal_error(error, open_log(options, os.environ))
        show(*fault.lines())
        return fault.exit_code


def _run(parsed: Any, options: Options) -> int:
    try:
        return int(parsed.run(parsed, options))
    finally:
        if parsed.ends_agents:
            state_directory = options.state_directory(os.environ)
            end_idle_agents(state_directory, open_log(options, os.environ))


def _parse(words: Sequence[str]) -> Any:
    """Return the parsed command line.  Raises UsageError."""
    parsed = _parse_from_ssh(words)
    if parsed is not None:
        return parsed
    from dcs_proxy.arguments import parse

    return parse(words)


def _parse_from_ssh(words: Sequence[str]) -> SimpleNamespace | None:
    """Return what parse() would for the two command lines that ssh runs; None for all others.

    ssh waits for these, and argparse would take a tenth of the time of a cold start.
    """
    config: str | None = None
    match words:
        case ["--home", home, "--config", str(config), *rest]:
            pass
        case ["--home", home, *rest]:
            pass
        case _:
            return None
    if any(word.startswith("-") for word in (home, config or "", *rest[1:])):
        return None
    match rest:
        case ["prepare", host]:
            from dcs_proxy.commands import prepare

            return SimpleNamespace(
                home=home, config=config, host=host, run=prepare.run, ends_agents=True
            )
        case ["--login", login, host, port] if host.startswith("dm-") or port.isdigit():
            from dcs_proxy.commands import connect

            return SimpleNamespace(
                home=home, config=config, host=host, port=port, login=login,
                bridge=False, relay=False, fdpass=False, run=connect.run, ends_agents=False,
            )  # fmt: skip
    return None
