"""The command line: argparse parsers for every command, and errors for a wrong command line."""

from __future__ import annotations

import argparse
import importlib
import re
import textwrap
from collections.abc import Sequence
from types import ModuleType
from typing import TYPE_CHECKING, Any, NoReturn

from dcs_proxy import __version__
from dcs_proxy.console.stdout import put
from dcs_proxy.errors import UsageError, exit_codes
from dcs_proxy.names import PREFIX, is_uuid
from dcs_proxy.text import quote_server

if TYPE_CHECKING:
    from _typeshed import SupportsWrite

# Pairs of a purpose and a command line, shown by --help.
Examples = tuple[tuple[str, str], ...]

_CONNECT = "dcs_proxy.commands.connect"
_COMMANDS = {
    "help": "dcs_proxy.commands.help",
    "login": "dcs_proxy.commands.login",
    "logout": "dcs_proxy.commands.logout",
    "config-ssh": "dcs_proxy.commands.config_ssh",
    "list": "dcs_proxy.commands.list",
    "status": "dcs_proxy.commands.status",
    "alias": "dcs_proxy.commands.alias",
    "wake": "dcs_proxy.commands.wake",
    "close": "dcs_proxy.commands.close",
    "doctor": "dcs_proxy.commands.doctor",
    "log": "dcs_proxy.commands.log",
    "completion": "dcs_proxy.commands.completion",
    "uninstall": "dcs_proxy.commands.uninstall",
    "version": "dcs_proxy.commands.version",
    "emulator": "dcs_proxy.commands.emulator",
    "prepare": "dcs_proxy.commands.prepare",
    "dial": "dcs_proxy.commands.dial",
}
_USAGE = """dcs-proxy [--home DIR] [--config FILE] COMMAND ...
       dcs-proxy [OPTION ...] HOST PORT"""
_EXAMPLES = (
    ("Make ssh, scp, rsync, git and editors use dcs-proxy", "dcs-proxy config-ssh"),
    ("Then log in to a machine", "ssh dm-foo"),
)
_WRAP: Any = {"break_on_hyphens": False, "break_long_words": False}
_COMMON = frozenset({"--home", "--config"})
_WITH_VALUE = _COMMON | {"--login"}
# Commands of other programs for what ours does under another name.
_LOG_IN = ("ssh", "connect", "shell")
_SYNONYMS = {"start": "wake", "up": "wake"}
_FLAGS = frozenset({"--help", "--version", "--bridge", "--relay", "--fdpass", "--"})


class Formatter(argparse.HelpFormatter):
    """Wrap text at spaces only, so that every option, path and command can be copied.

    In a list, whose lines begin with two spaces, each line is wrapped by itself.  Examples, whose
    lines begin with four spaces, are not wrapped.
    """

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, **_WRAP)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        parts = []
        for part in text.split("\n\n"):
            lines = part.split("\n") if "\n " in part else [" ".join(part.split())]
            parts.append("\n".join(_wrap_line(line, width) for line in lines))
        return "\n\n".join(parts)


def _wrap_line(line: str, width: int) -> str:
    if line.startswith("    "):
        return line
    hanging = re.findall(r"^  (?:\d+ +)?|", line)[0]
    return textwrap.fill(line, width, subsequent_indent=" " * len(hanging), **_WRAP)


class Parser(argparse.ArgumentParser):
    """An ArgumentParser that reports a wrong command line as a UsageError.

    `examples` are pairs of a purpose and a command line; `commands` are the parsers of the
    subcommands by name, and `summaries` has the short help of each that is not hidden.
    """

    def __init__(self, *, examples: Examples = (), epilog: str = "", **more: Any) -> None:
        shown = "".join(f"\n  {want}:\n    {typed}" for want, typed in examples)
        parts = [*([f"examples:{shown}"] if shown else []), *([epilog] if epilog else [])]
        super().__init__(
            allow_abbrev=False,
            formatter_class=Formatter,
            epilog="\n\n".join(parts) or None,
            **more,
        )
        self.examples = examples
        self.commands: dict[str, Parser] = {}
        self.summaries: dict[str, str] = {}

    def _print_message(self, message: str, file: SupportsWrite[str] | None = None) -> None:
        """Print what ``--help`` and ``--version`` say.  Raises ReaderGone."""
        put(*message.removesuffix("\n").split("\n"))

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"{self.prog} --help")


def build_parser(only: str | None = None) -> Parser:
    """Return a parser with every command, or with the command `only`.

    With `only`, no other command's module is imported.
    """
    parser = Parser(
        prog="dcs-proxy",
        usage=_USAGE,
        description="Make ssh dm-foo work for machines of Dedalus Cloud Services, which sleep when "
        "idle. ssh runs dcs-proxy HOST PORT as its ProxyCommand (see dcs-proxy HOST PORT --help).",
        examples=_EXAMPLES,
        epilog="" if only else _exit_codes(),
    )
    parser.add_argument(
        "-V", "--version", action="version", version=f"dcs-proxy {__version__}",
        help="print the version and exit",
    )  # fmt: skip
    _add_common(parser)
    # Without `prog`, the errors and help of a command would begin with the usage above.
    commands = parser.add_subparsers(
        metavar="COMMAND", required=True, title="commands", prog=parser.prog
    )
    for name, path in _COMMANDS.items():
        if only in (None, name):
            module = importlib.import_module(path)
            # Commands that ssh runs have no HELP, and no list shows them.
            shown = {"help": module.HELP} if hasattr(module, "HELP") else {}
            command = commands.add_parser(
                name, description=module.DESCRIPTION, examples=module.EXAMPLES, **shown
            )
            _add_command(command, module)
            parser.commands[name] = command
            if shown:
                parser.summaries[name] = module.HELP
    return parser


def build_connect_parser() -> Parser:
    """Return the parser of ``dcs-proxy HOST PORT``."""
    module = importlib.import_module(_CONNECT)
    parser = Parser(prog="dcs-proxy", description=module.DESCRIPTION, examples=module.EXAMPLES)
    _add_common(parser)
    _add_command(parser, module)
    # ssh waits until we exit.
    parser.set_defaults(ends_agents=False)
    return parser


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the parsed command line, with `run` and `ends_agents` of its command.

    Raises UsageError; SystemExit after ``--help`` or ``--version``.
    """
    words = words[1:] if words[:1] == ["--"] else words
    parser = _parser(words)
    is_complete = _positional(words) or _WITH_VALUE.intersection(words)
    parsed, rest = parser.parse_known_args(words if is_complete else [*words, "help"])
    if rest:
        command = " ".join(["dcs-proxy", *(w for w in _positional(words)[:1] if w in _COMMANDS)])
        late = _COMMON.intersection(word.partition("=")[0] for word in rest)
        hint = f"type {min(late)} before the command" if late else f"{command} --help"
        raise UsageError(f"unrecognized arguments: {quote_server(' '.join(rest))}", hint=hint)
    return parsed


def _parser(words: Sequence[str]) -> Parser:
    """Return the parser of the command in `words`, or of all commands."""
    first, second = [*_positional(words), None, None][:2]
    if unknown := _unknown_option(words, first):
        raise UsageError(f"{quote_server(unknown)} is not an option", hint="dcs-proxy --help")
    if first is None or first in _COMMANDS:
        return build_parser(first)
    if first.startswith("dm-") and second is None and "--help" not in words:
        raise unknown_command(first)
    if first.startswith("dm-") or (second and second.isdigit()):
        return build_connect_parser()
    raise unknown_command(first)


def unknown_command(typed: str) -> UsageError:
    """Return the error for a word that is not a command; its hint is the most similar command."""
    import difflib

    word = typed.lower()
    begun = [name for name in _COMMANDS if name.startswith(word)]
    near = begun or difflib.get_close_matches(word, _COMMANDS, 1)
    best = _SYNONYMS.get(word) or (near[0] if near else "")
    hint = f"did you mean dcs-proxy {best}?" if best else "dcs-proxy help"
    if word in _LOG_IN:
        hint = "to log in to a machine, type: ssh dm-foo"
    if typed.startswith(PREFIX) or is_uuid(typed):
        hint = f"to log in, type: ssh {PREFIX}{typed.removeprefix(PREFIX)}"
    return UsageError(f"{quote_server(typed)} is not a command", hint=hint)


def _exit_codes() -> str:
    return "exit codes:" + "".join(f"\n  {code:<4} {what}" for code, what in exit_codes())


def _add_common(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--home", metavar="DIR", help="the state directory (default: ~/.ssh/dcs-proxy)"
    )
    parser.add_argument(
        "--config",
        metavar="FILE",
        help="the config file (default: ~/.config/dcs-proxy/config.toml)",
    )


def _add_command(parser: argparse.ArgumentParser, module: ModuleType) -> None:
    module.add_arguments(parser)
    parser.set_defaults(run=module.run, ends_agents=True)


def _unknown_option(words: Sequence[str], first: str | None) -> str:
    """Return an unknown option before the first word, whose value may look like a command."""
    before = words[: words.index(first)] if first else words
    known = _WITH_VALUE | _FLAGS
    return next((w for w in before if w[:2] == "--" and w.partition("=")[0] not in known), "")


def _positional(words: Sequence[str]) -> list[str]:
    """Return the words that are neither options nor values of the options before the command."""
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
