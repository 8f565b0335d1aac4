from __future__ import annotations

import pytest

from dcs_proxy.cli import Parser
from dcs_proxy.syntax import Kind, Option, Value, read_syntax


def parser() -> Parser:
    made = Parser(prog="prog", description="Does.", examples=(("Do", "prog it"),))
    made.add_argument("--count", metavar="N", type=int, default=3, help="so many (%(default)d)")
    made.add_argument("-f", "--file", metavar="FILE", action="append", help="100%% of a file")
    how = made.add_mutually_exclusive_group()
    how.add_argument("--one", action="store_true", help="first")
    how.add_argument("-t", "--two", action="store_true", help="second")
    return made


def test_options_are_read_with_their_defaults_and_exclusions() -> None:
    syntax = read_syntax(parser())
    assert (syntax.name, syntax.description) == ("prog", "Does.")
    assert syntax.examples == (("Do", "prog it"),)
    help_option, *options = syntax.options
    assert help_option.names == ("-h", "--help") and help_option.stands_alone
    number = Value("N", help="so many (3)")
    file = Value("FILE", help="100% of a file")
    assert options == [
        Option(("--count",), number, "so many (3)", False, (), False),
        Option(("-f", "--file"), file, "100% of a file", True, (), False),
        Option(("--one",), None, "first", False, ("-t", "--two"), False),
        Option(("-t", "--two"), None, "second", False, ("--one",), False),
    ]


def test_commands_have_operands_of_every_number() -> None:
    made = Parser(prog="prog")
    commands = made.add_subparsers()
    command = commands.add_parser("go", help="a way", description="Go a way.")
    command.add_argument("host", metavar="HOST")
    command.add_argument("shell", choices=["a", "b"], nargs="?")
    command.add_argument("more", metavar="MORE", nargs="+")
    (go,) = read_syntax(made).commands
    assert (go.name, go.help, go.description) == ("go", "a way", "Go a way.")
    assert go.operands == (
        Value("HOST"),
        Value("SHELL", choices=("a", "b"), is_optional=True),
        Value("MORE", repeats=True),
    )


@pytest.mark.parametrize(
    ("name", "kind"),
    [("FILE", Kind.FILE), ("DIR", Kind.DIRECTORY), ("HOST", Kind.MACHINE), ("N", Kind.OTHER)],
)
def test_the_name_of_a_value_tells_what_it_is(name: str, kind: Kind) -> None:
    assert Value(name).kind is kind


@pytest.mark.parametrize("argument", ["--pair", "pair"])
def test_what_completion_could_not_show_is_refused(argument: str) -> None:
    made = parser()
    made.add_argument(argument, nargs=2)
    with pytest.raises(TypeError, match="pair"):
        read_syntax(made)
