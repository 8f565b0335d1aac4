from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from dcs_proxy import cli
from dcs_proxy.cli import Parser, build_connect_parser, build_parser
from dcs_proxy.errors import exit_codes

PROGRAM = build_parser()
CONNECT = build_connect_parser()
EVERY: dict[str, Parser] = {"": PROGRAM, "dm-foo 22": CONNECT, **PROGRAM.commands}
EXAMPLES = [typed for parser in EVERY.values() for _, typed in parser.examples]


@pytest.mark.parametrize("words", EVERY, ids=lambda words: words or "no command")
def test_help_says_what_it_is_for_and_shows_examples_in_80_columns(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = EVERY[words]
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as ended:
        cli.main([*words.split(), "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert parser.description and parser.description.endswith(".")
    assert " ".join(parser.description.split()) in " ".join(shown.split())
    assert parser.examples
    for want, typed in parser.examples:
        assert f"  {want}:\n    {typed}\n" in shown
    # An example is one line, so that it can be copied; usage cannot break the name of a value.
    below = shown.partition("\n\n")[2].splitlines()
    assert not [line for line in below if len(line) > 80 and line.strip() not in EXAMPLES]


@pytest.mark.parametrize("typed", [e for e in EXAMPLES if e.startswith("dcs-proxy ")])
def test_every_example_is_a_command_line_that_is_understood(typed: str) -> None:
    command = shlex.split(typed.partition(">")[0])[1:]
    assert build_parser().parse_args(command).run


def test_every_option_and_operand_has_a_help_text() -> None:
    for parser in EVERY.values():
        assert [a for a in parser._actions if not a.help and not a.choices] == []
    *_, commands = PROGRAM._actions
    assert isinstance(commands, argparse._SubParsersAction)
    assert all(command.help for command in commands._choices_actions)


def test_help_ends_with_every_exit_code() -> None:
    shown = build_parser().format_help()
    assert [code for code, _ in exit_codes()] == sorted({code for code, _ in exit_codes()})
    assert shown.endswith("".join(f"  {code:<4} {what}\n" for code, what in exit_codes()))


@pytest.mark.parametrize(
    ("line", "message", "hint"),
    [
        ("config-shh", '"config-shh" is not a command', "did you mean dcs-proxy config-ssh?"),
        ("prepar dm-foo", '"prepar" is not a command', "did you mean dcs-proxy prepare?"),
        ("\x1b[31m", '"[31m" is not a command', "dcs-proxy --help"),
        ("--hom dir config-ssh", '"--hom" is not an option', "dcs-proxy --help"),
        ("--home=dir --x=config-ssh", '"--x=config-ssh" is not an option', "dcs-proxy --help"),
        ("config-ssh --dry", 'unrecognized arguments: "--dry"', "dcs-proxy config-ssh --help"),
        ("config-ssh a b", 'unrecognized arguments: "a b"', "dcs-proxy config-ssh --help"),
        ("dm-foo 22 33", 'unrecognized arguments: "33"', "dcs-proxy --help"),
        (
            "completion",
            "the following arguments are required: SHELL",
            "dcs-proxy completion --help",
        ),
        ("--home", "argument --home: expected one argument", "dcs-proxy --help"),
        ("", "the following arguments are required: COMMAND", "dcs-proxy --help"),
    ],
)
def test_a_wrong_command_line_is_explained_with_the_next_thing_to_type(
    line: str, message: str, hint: str, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path,
) -> None:  # fmt: skip
    monkeypatch.setenv("DCS_PROXY_HOME", str(tmp_path))
    assert cli.main(line.split()) == 2
    assert capsys.readouterr().err == f"dcs-proxy: {message}\ndcs-proxy: hint: {hint}\n"


def test_one_command_imports_nothing_of_the_others() -> None:
    code = (
        "import sys; from dcs_proxy.cli import build_parser; build_parser('prepare');"
        "print(*sorted(m for m in sys.modules if m.startswith('dcs_proxy.commands.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    # Modules with an underscore are what commands have in common.
    assert [name for name in done if "._" not in name] == ["dcs_proxy.commands.prepare"]
