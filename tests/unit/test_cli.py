from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy import __version__, cli
from dcs_proxy.app import Options
from dcs_proxy.arguments import Parser, build_connect_parser, build_parser, parse
from dcs_proxy.errors import ApiUnavailable, ClientGone, ReaderGone, UsageError, exit_codes

PROGRAM = build_parser()
CONNECT = build_connect_parser()
EVERY: dict[str, Parser] = {"": PROGRAM, "dm-foo 22": CONNECT, **PROGRAM.commands}
RUN_BY_SSH = ("prepare", "dial")
UUID = "0a1b2c3d-0000-4000-8000-00000000c0de"
EXAMPLES = [typed for parser in EVERY.values() for _, typed in parser.examples]


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("words", EVERY, ids=lambda words: words or "no command")
def test_help_says_what_it_is_for_and_shows_examples_in_its_columns(
    words: str, width: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    parser = EVERY[words]
    monkeypatch.setenv("COLUMNS", str(width))
    with pytest.raises(SystemExit) as ended:
        cli.main([*words.split(), "--help"])
    shown = capsys.readouterr().out
    assert ended.value.code == 0
    assert parser.description and parser.description.endswith(".")
    assert " ".join(parser.description.split()) in " ".join(shown.split())
    assert parser.examples
    lines = shown.splitlines()
    for want, typed in parser.examples:
        assert f"    {typed}" in lines
        assert f" {want}:" in " ".join(shown.split())
    # An example is one line, so that it can be copied.
    assert not [line for line in lines if len(line) > width and line.strip() not in EXAMPLES]


@pytest.mark.parametrize("words", EVERY, ids=lambda words: words or "no command")
def test_help_breaks_no_path_option_or_command(
    words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A word that is broken at a hyphen cannot be copied."""
    shown = {}
    for width in (60, 80, 1000):
        monkeypatch.setenv("COLUMNS", str(width))
        with pytest.raises(SystemExit):
            cli.main([*words.split(), "--help"])
        shown[width] = capsys.readouterr().out.split()
    assert shown[60] == shown[80] == shown[1000]


@pytest.mark.parametrize("line", ["", "help", "--home /nowhere help"])
def test_short_help_fits_a_small_terminal(line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(line.split()) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 24 and max(map(len, lines)) <= 60
    listed = [text.split()[0] for text in lines[lines.index("Commands:") + 1 : -2]]
    assert listed == [name for name in EVERY if name not in ("", "dm-foo 22", *RUN_BY_SSH, "help")]


@pytest.mark.parametrize("name", PROGRAM.commands)
def test_help_of_a_command_is_what_its_option_prints(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["help", name]) == 0
    shown = capsys.readouterr().out
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    assert capsys.readouterr().out == shown


def test_the_version_is_printed_however_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    for option in ("-V", "--version"):
        with pytest.raises(SystemExit) as ended:
            cli.main([option])
        assert ended.value.code == 0
    assert cli.main(["version"]) == 0
    assert capsys.readouterr().out == f"dcs-proxy {__version__}\n" * 3


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
        ("lst", '"lst" is not a command', "did you mean dcs-proxy list?"),
        ("LIST", '"LIST" is not a command', "did you mean dcs-proxy list?"),
        ("ls", '"ls" is not a command', "did you mean dcs-proxy list?"),
        ("ssh dm-foo", '"ssh" is not a command', "to log in to a machine, type: ssh dm-foo"),
        ("start dm-foo", '"start" is not a command', "did you mean dcs-proxy wake?"),
        ("-- lst", '"lst" is not a command', "did you mean dcs-proxy list?"),
        ("list --home /x", 'unrecognized arguments: "--home /x"', "type --home before the command"),
        (
            "wake a --config=/x",
            'unrecognized arguments: "--config=/x"',
            "type --config before the command",
        ),
        ("un", '"un" is not a command', "did you mean dcs-proxy uninstall?"),
        ("help lgoin", '"lgoin" is not a command', "did you mean dcs-proxy login?"),
        ("help dm-foo", '"dm-foo" is not a command', "to log in, type: ssh dm-foo"),
        (UUID, f'"{UUID}" is not a command', f"to log in, type: ssh dm-{UUID}"),
        ("\x1b[31m", '"[31m" is not a command', "dcs-proxy help"),
        ("--hom dir config-ssh", '"--hom" is not an option', "dcs-proxy --help"),
        ("--home=dir --x=config-ssh", '"--x=config-ssh" is not an option', "dcs-proxy --help"),
        ("config-ssh --dry", 'unrecognized arguments: "--dry"', "dcs-proxy config-ssh --help"),
        ("config-ssh a b", 'unrecognized arguments: "a b"', "dcs-proxy config-ssh --help"),
        ("config-ssh list", 'unrecognized arguments: "list"', "dcs-proxy config-ssh --help"),
        ("dm-foo 22 33", 'unrecognized arguments: "33"', "dcs-proxy --help"),
        (
            "completion",
            "the following arguments are required: SHELL",
            "dcs-proxy completion --help",
        ),
        ("--home", "argument --home: expected one argument", "dcs-proxy --help"),
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
        "import sys; from dcs_proxy.arguments import build_parser; build_parser('prepare');"
        "print(*sorted(m for m in sys.modules if m.startswith('dcs_proxy.commands.')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    ).stdout.split()
    # Modules with an underscore are what commands have in common.
    assert [name for name in done if "._" not in name] == ["dcs_proxy.commands.prepare"]


@pytest.mark.parametrize(
    "line",
    [
        "--home /s prepare dm-foo",
        "--home /s --config /c.toml prepare web",
        "--home /s --login root dm-foo 22",
        "--home /s --login root web 22",
        "--home /s --config /c.toml --login 'r t' dm-foo ssh",
        "--home '' --login '' dm-foo 22",
    ],
)
def test_what_ssh_runs_means_the_same_without_argparse(line: str) -> None:
    words = shlex.split(line)
    quick = cli._parse_from_ssh(words)
    assert quick is not None
    assert vars(quick) == vars(parse(words))


@pytest.mark.parametrize(
    "line",
    [
        "prepare dm-foo",
        "--home /s prepare",
        "--home /s prepare --help",
        "--home /s prepare -- dm-foo",
        "--home /s prepare dm-foo dm-bar",
        "--home --config prepare dm-foo",
        "--home /s --config --login prepare dm-foo",
        "--home /s --login root dm-foo",
        "--home /s --login root web ssh",
        "--home /s --login -l dm-foo 22",
        "--home /s --login root --bridge dm-foo 22",
        "--home /s status",
        "",
    ],
)
def test_every_other_command_line_is_left_to_argparse(line: str) -> None:
    assert cli._parse_from_ssh(shlex.split(line)) is None


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The state directories whose idle agents were ended."""
    found: list[str] = []
    monkeypatch.setattr(cli, "end_idle_agents", lambda directory, log: found.append(directory))
    monkeypatch.setenv("DCS_PROXY_HOME", str(tmp_path))
    return found


def run(monkeypatch: pytest.MonkeyPatch, outcome: Any, **options: Any) -> int:
    """Run a command that returns or raises `outcome`."""

    def command(parsed: Any, options: Options) -> Any:
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    parsed = SimpleNamespace(home=None, config=None, ends_agents=True, run=command)
    parsed.__dict__.update(options)
    monkeypatch.setattr(cli, "_parse", lambda words: parsed)
    return cli.main([])


def shown_error() -> ApiUnavailable:
    error = ApiUnavailable("down", hint="wait")
    error.was_shown = True
    return error


@pytest.mark.parametrize(
    ("outcome", "code", "said", "logged"),
    [
        (0, 0, "", ""),
        (True, 1, "", ""),
        (ApiUnavailable("down", hint="wait", machine="dm-foo"), 7,
         "dcs-proxy: dm-foo: down\ndcs-proxy: hint: wait\n", " failed machine=dm-foo code=7 "),
        (shown_error(), 7, "", " failed code=7 "),
        (ClientGone("ssh has gone"), 130, "", " failed code=130 "),
        (ReaderGone("closed"), 0, "", ""),
        (KeyboardInterrupt(), 130, "dcs-proxy: interrupted\n", ""),
        (ZeroDivisionError(), 1,
         "dcs-proxy: internal error (ZeroDivisionError); this is a bug in dcs-proxy\n"
         "dcs-proxy: hint: report it with the last lines of HOME/log\n", "ZeroDivisionError"),
    ],
)  # fmt: skip
def test_every_end_has_its_code_and_its_words(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ended: list[str],
    capsys: pytest.CaptureFixture[str], outcome: Any, code: int, said: str, logged: str,
) -> None:  # fmt: skip
    assert run(monkeypatch, outcome) == code
    assert capsys.readouterr() == ("", said.replace("HOME", str(tmp_path)))
    log = tmp_path / "log"
    assert (logged in log.read_text()) if logged else not log.exists()
    # Whatever happened, agents that hold nothing are not left behind.
    assert ended == [str(tmp_path)]


def test_the_options_choose_the_directory_and_ssh_is_not_kept_waiting(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, ended: list[str]
) -> None:
    other = tmp_path / "other"
    other.mkdir()
    assert run(monkeypatch, ApiUnavailable("down", hint=""), home=str(other)) == 7
    assert ended == [str(other)]
    assert (other / "log").exists() and not (tmp_path / "log").exists()
    assert run(monkeypatch, 0, ends_agents=False) == 0
    assert ended == [str(other)]


def test_the_words_are_those_of_the_command_line(
    monkeypatch: pytest.MonkeyPatch, ended: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["dcs-proxy", "version"])
    assert cli.main() == 0
    assert capsys.readouterr().out == f"dcs-proxy {__version__}\n"


@pytest.mark.parametrize("word", ["-h", "--help", "-V", "--version"])
@pytest.mark.parametrize("before", [[], ["--home", "/s"], ["--home=/s"]])
def test_help_and_version_need_no_command(
    word: str, before: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main([*before, word])
    assert ended.value.code == 0
    shown = capsys.readouterr()
    expected = f"dcs-proxy {__version__}\n" if "V" in word.upper() else PROGRAM.format_help()
    assert shown == (expected, "")


@pytest.mark.parametrize("way", ["bridge", "relay", "fdpass"])
def test_a_way_to_connect_may_be_named_before_the_host(way: str) -> None:
    parsed = parse([f"--{way}", "dm-foo", "22"])
    assert (parsed.host, parsed.port, getattr(parsed, way)) == ("dm-foo", "22", True)
    assert [name for name in ("bridge", "relay", "fdpass") if getattr(parsed, name)] == [way]
    assert parse(["--", "dm-foo", "22"]).host == "dm-foo"


@pytest.mark.parametrize("line", ["web ssh", "web", "dm-foo", "web 22x"])
def test_a_host_that_is_not_clearly_one_is_a_command(line: str) -> None:
    with pytest.raises(UsageError, match=r" is not a command$"):
        parse(line.split())


def test_two_hyphens_may_precede_a_command() -> None:
    assert parse(["--", "list", "--json"]).json
