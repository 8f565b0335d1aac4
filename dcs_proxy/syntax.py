"""The command line as data: what completion and the man pages are made from.

Read from the argparse parser, so that they say what ``--help`` says.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from enum import Enum

from dcs_proxy.cli import Examples, Parser


class Kind(Enum):
    """What a value is, told by the name that it has in usage."""

    FILE = "FILE"
    DIRECTORY = "DIR"
    MACHINE = "HOST"
    OTHER = ""


@dataclass(frozen=True)
class Value:
    """An operand, or what an option takes.

    `name` is as usage shows it; `choices` are the only values there are, if not empty;
    `is_optional` and `repeats` are about operands.
    """

    name: str
    choices: tuple[str, ...] = ()
    help: str = ""
    is_optional: bool = False
    repeats: bool = False

    @property
    def kind(self) -> Kind:
        """What it is, so that a shell can offer some."""
        return {kind.value: kind for kind in Kind}.get(self.name, Kind.OTHER)


@dataclass(frozen=True)
class Option:
    """An option: all its `names`, the short one first, and its `value` unless it is a flag.

    `excludes` are the names of the options that cannot stand beside it; `stands_alone` says that
    nothing can.
    """

    names: tuple[str, ...]
    value: Value | None
    help: str
    repeats: bool
    excludes: tuple[str, ...]
    stands_alone: bool


@dataclass(frozen=True)
class Syntax:
    """A command, or the whole program with its `commands`; `help` is a few words."""

    name: str
    help: str
    description: str
    examples: Examples
    options: tuple[Option, ...]
    operands: tuple[Value, ...]
    commands: tuple[Syntax, ...] = ()


def read_syntax(parser: Parser, name: str = "", help_text: str = "") -> Syntax:
    """Return what `parser` accepts.  Raises TypeError for what argparse can and we do not use."""
    options: list[Option] = []
    operands: list[Value] = []
    commands: list[Syntax] = []
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            helps = {choice.dest: choice.help or "" for choice in action._choices_actions}
            commands += [
                read_syntax(command, command_name, helps[command_name])
                for command_name, command in action.choices.items()
            ]
        elif action.option_strings:
            options.append(_option(parser, action))
        else:
            operands.append(_value(parser, action))
    return Syntax(
        name=name or parser.prog,
        help=help_text,
        description=parser.description or "",
        examples=parser.examples,
        options=tuple(options),
        operands=tuple(operands),
        commands=tuple(commands),
    )


def _option(parser: Parser, action: argparse.Action) -> Option:
    if action.nargs not in (None, 0):
        raise TypeError(f"{action.option_strings[-1]}: an option takes one value or none")
    excludes = [
        name
        for group in parser._mutually_exclusive_groups
        if action in group._group_actions
        for other in group._group_actions
        if other is not action
        for name in other.option_strings
    ]
    return Option(
        names=tuple(action.option_strings),
        value=None if action.nargs == 0 else _value(parser, action),
        help=_help(parser, action),
        repeats=isinstance(action, argparse._AppendAction),
        excludes=tuple(excludes),
        stands_alone=isinstance(action, argparse._HelpAction | argparse._VersionAction),
    )


def _value(parser: Parser, action: argparse.Action) -> Value:
    if action.nargs not in (None, "?", "*", "+") or isinstance(action.metavar, tuple):
        raise TypeError(f"{action.dest}: an operand is one word, optional, or repeated")
    return Value(
        name=action.metavar or action.dest.upper(),
        choices=tuple(map(str, action.choices or ())),
        help=_help(parser, action),
        is_optional=action.nargs in ("?", "*"),
        repeats=action.nargs in ("*", "+"),
    )


def _help(parser: Parser, action: argparse.Action) -> str:
    return (action.help or "") % {**vars(action), "prog": parser.prog}
