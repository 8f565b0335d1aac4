"""Arguments and dispatch.

Rules of what people read: results go to stdout; everything else goes to stderr, one line each,
beginning with ``dcs-proxy:``, and a line with a hint where there is something to do.  No
traceback reaches anybody: it goes to the log, without values.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from dcs_proxy import __version__
from dcs_proxy.errors import ClientGone, DcsError, UsageError, quote_server
from dcs_proxy.log import milliseconds_since
from dcs_proxy.stderr import show
from dcs_proxy.wiring import Options, open_log

_CONNECT = "dcs_proxy.commands.connect"
_COMMANDS = {
    "prepare": "dcs_proxy.commands.prepare",
    "dial": "dcs_proxy.commands.dial",
    "config-ssh": "dcs_proxy.commands.config_ssh",
    "login": "dcs_proxy.commands.login",
    "logout": "dcs_proxy.commands.logout",
    "list": "dcs_proxy.commands.list",
    "status": "dcs_proxy.commands.status",
    "wake": "dcs_proxy.commands.wake",
    "close": "dcs_proxy.commands.close",
    "doctor": "dcs_proxy.commands.doctor",
    "log": "dcs_proxy.commands.log",
    "emulator": "dcs_proxy.commands.emulator",
}
_WITH_VALUE = frozenset({"--home", "--config", "--login"})


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the program; return its exit code (see errors.py)."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    options = Options()
    try:
        parser = _parser(words)
        parsed = parser.parse_args(words)
        options = Options(parsed.home, parsed.config)
        return int(parsed.run(parsed, options))
    except KeyboardInterrupt:
        show("dcs-proxy: interrupted")
        return ClientGone.exit_code
    except DcsError as error:
        open_log(options, os.environ).event(
            "failed", machine=error.machine, code=error.exit_code, what=error.about(),
            ms=milliseconds_since(),
        )  # fmt: skip
        if not error.was_shown and not isinstance(error, ClientGone):
            show(*error.lines())
        return error.exit_code
    except Exception as error:
        log = open_log(options, os.environ)
        log.traceback(error)
        show(
            f"dcs-proxy: internal error ({type(error).__name__}); this is a fault of dcs-proxy",
            f"dcs-proxy: hint: report it with the last lines of {log.path}",
        )
        return 1


class _Parser(argparse.ArgumentParser):
    """Says what is wrong with the command line in the form of every other error."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help")


def _parser(words: Sequence[str]) -> argparse.ArgumentParser:
    """Return the parser of the command in `words`, or of them all."""
    first = _first_word(words)
    if first is None or first in _COMMANDS:
        return _command_parser(first)
    if first.startswith("dm-") or len(_positional(words)) > 1:
        parser = _Parser(prog="dcs-proxy", allow_abbrev=False)
        _add_common(parser)
        _add_command(parser, _CONNECT)
        return parser
    raise UsageError(f"{quote_server(first)} is not a command", hint="dcs-proxy --help")


def _command_parser(only: str | None) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="dcs-proxy",
        usage="dcs-proxy [--home DIR] [--config FILE] COMMAND ...\n"
        "       dcs-proxy [--login USER] [--relay | --fdpass] HOST PORT",
        description="ssh dm-foo just works: the machines of Dedalus Cloud Services behind "
        "plain OpenSSH.  HOST PORT is what ssh runs as its ProxyCommand.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dcs-proxy {__version__}")
    _add_common(parser)
    # Without `prog` a command's errors and help would begin with the whole usage above.
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, title="commands", prog=parser.prog
    )
    for name, module in _COMMANDS.items():
        if only in (None, name):
            text = importlib.import_module(module).HELP
            command = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
            _add_command(command, module)
    return parser


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--home", metavar="DIR", help="the state directory (default: ~/.ssh/dcs-proxy)"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the config file (default: ~/.config/dcs-proxy/config.toml)",
    )


def _add_command(parser: argparse.ArgumentParser, module: str) -> None:
    command = importlib.import_module(module)
    command.add_arguments(parser)
    parser.set_defaults(run=command.run)


def _first_word(words: Sequence[str]) -> str | None:
    positional = _positional(words)
    return positional[0] if positional else None


def _positional(words: Sequence[str]) -> list[str]:
    """Return the words that are neither options nor values of the options before a command."""
    found = []
    skip = False
    for word in words:
        if skip:
            skip = False
        elif word in _WITH_VALUE:
            skip = True
        elif not word.startswith("-"):
            found.append(word)
    return found
