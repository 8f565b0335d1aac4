"""The man pages: correct mdoc, and complete."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import subprocess
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest

from dcs_proxy.arguments import Parser, build_connect_parser, build_parser
from dcs_proxy.commands.status import Status
from dcs_proxy.doctor.plan import COMPUTER, MACHINE
from dcs_proxy.errors import ConfigError, exit_codes
from dcs_proxy.local.settings import Settings, load_settings
from dcs_proxy.session import lifetime
from dcs_proxy.session.report import AgentStatus, CertificateStatus, SessionStatus

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "contrib" / "man" / f"dcs-proxy.{section}" for section in (1, 5)]
PROGRAM = build_parser()
COMMANDS: dict[str, Parser] = {**PROGRAM.commands, "HOST PORT": build_connect_parser()}


def shown(page: Path) -> str:
    """Return a page as it is displayed, without bold and underlined characters."""
    done = subprocess.run(
        ["mandoc", "-Tutf8", "-Owidth=200", page], capture_output=True, text=True, check=True
    )
    return re.sub(".\b", "", done.stdout)


def section(page: Path, title: str) -> str:
    """Return what stands below a heading (``.Sh``, or ``.Ss`` in COMMANDS)."""
    below = re.split(rf"^(?:   )?{re.escape(title)}\n", shown(page), flags=re.MULTILINE)[1]
    return re.split(r"^(?:   )?\S", below, maxsplit=1, flags=re.MULTILINE)[0]


def tags(actions: list[argparse.Action]) -> list[str]:
    """Return each action as a list of the page shows it: ``-f, --follow`` or ``HOST``."""
    found = []
    for action in actions:
        value = "" if action.nargs == 0 else f" {action.metavar or action.dest.upper()}"
        found.append(", ".join(f"{name}{value}" for name in action.option_strings) or value.strip())
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_mandoc_finds_nothing_wrong_with_a_page(page: Path) -> None:
    done = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_description_has_every_option_that_precedes_the_command() -> None:
    options = [action for action in PROGRAM._actions if action.option_strings]
    for tag in tags(options):
        assert re.search(rf"^     {re.escape(tag)}$", section(PAGES[0], "DESCRIPTION"), re.M), tag


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_its_synopsis_options_and_operands(name: str) -> None:
    text = section(PAGES[0], name)
    synopsis = text.partition("\n\n")[0]
    parser = COMMANDS[name]
    actions = [action for action in parser._actions if action.dest != "help"]
    for tag in tags([a for a in actions if a.dest not in ("home", "config")]):
        assert re.search(rf"^     {re.escape(tag)}(  |$)", text, re.M), tag
    for action in actions:
        word = action.option_strings[0] if action.option_strings else str(action.metavar)
        assert re.search(rf"(?<![\w-]){re.escape(word)}(?![\w-])", synopsis), word
    listed = set(re.findall(r"^     (?:-\w, )?(--[\w-]+)", text, re.M))
    assert listed <= set(parser._option_string_actions)


def test_every_command_line_of_the_examples_is_accepted() -> None:
    lines = re.findall(r"^           (.+)$", section(PAGES[0], "EXAMPLES"), re.M)
    ours = [line.partition("dcs-proxy ")[2] for line in lines if "ProxyCommand" not in line]
    ours = [line.partition(">")[0] for line in ours if line]
    assert len(ours) > 10
    for line in ours:
        assert PROGRAM.parse_args(shlex.split(line)).run


def test_every_exit_code_is_explained_as_in_help() -> None:
    text = section(PAGES[0], "EXIT STATUS")
    listed = re.findall(r"^     (\d+) +(\S.*)$", text, re.M)
    assert [(int(code), meaning) for code, meaning in listed] == exit_codes()


def test_every_environment_variable_that_is_read_is_explained() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "dcs_proxy").rglob("*.py"))
    read = set(re.findall(r"\b(?:DCS_PROXY|DEDALUS)_[A-Z_]+\b", sources))
    text = section(PAGES[0], "ENVIRONMENT")
    listed = set(re.findall(r"^     ((?:DCS_PROXY|DEDALUS)_[A-Z_]+)$", text, re.M))
    assert listed == read and "DCS_PROXY_HOME" in read


def test_every_key_of_json_is_named() -> None:
    text = section(PAGES[0], "JSON")
    for kind in (Status, SessionStatus, CertificateStatus, AgentStatus):
        for field in fields(kind):
            assert re.search(rf"\b{field.name}\b", text), field.name


def explained_settings() -> dict[str, tuple[str, str]]:
    """Return the values and the default that the page names for each setting."""
    text = section(PAGES[1], "SETTINGS")
    parts = re.split(r"^     (\w+)\b *\n? *", text, flags=re.M)[1:]
    found = {}
    for key, part in zip(parts[::2], parts[1::2], strict=True):
        match = re.search(r"Values: (.+)\.  Default: (.+)\.\s*\Z", part)
        assert match, key
        found[key] = (match[1], match[2])
    return found


def accepts(tmp_path: Path, key: str, value: str) -> bool:
    path = tmp_path / "config.toml"
    path.write_text(f"{key} = {value}\n")
    try:
        load_settings({}, str(path))
    except ConfigError:
        return False
    return True


def test_every_setting_is_explained_with_its_default(tmp_path: Path) -> None:
    explained = explained_settings()
    assert list(explained) == [field.name for field in fields(Settings)]
    path = tmp_path / "config.toml"
    path.write_text("".join(
        f"{key} = {default}\n" for key, (_, default) in explained.items() if default != "not set"
    ))  # fmt: skip
    environment = {"XDG_CONFIG_HOME": os.path.expanduser("~/.config")}
    assert load_settings(environment, str(path)) == load_settings(environment)
    unset = [key for key, (_, default) in explained.items() if default == "not set"]
    assert unset == [field for field in explained if not getattr(load_settings(environment), field)]


def test_the_values_of_settings_are_those_that_are_accepted(tmp_path: Path) -> None:
    checked = []
    for key, (values, _) in explained_settings().items():
        if span := re.fullmatch(r"(\d+) to (\d+)", values):
            low, high = int(span[1]), int(span[2])
            tried = [accepts(tmp_path, key, str(n)) for n in (low - 1, low, high, high + 1)]
            assert tried == [False, True, True, False], key
        elif re.fullmatch(r"\S+ or \S+", values):
            assert all(accepts(tmp_path, key, value) for value in values.split(" or ")), key
        else:
            continue
        checked.append(key)
    assert checked == [
        "wake_seconds", "reuse_seconds", "connect_seconds", "agent",
        "wake",
    ]  # fmt: skip


def test_the_example_of_settings_is_accepted(tmp_path: Path) -> None:
    example = section(PAGES[1], "EXAMPLES")
    (tmp_path / "config.toml").write_text(textwrap.dedent(example))
    settings = load_settings({}, str(tmp_path / "config.toml"))
    assert (settings.wake_seconds, settings.agent) == (120, "user")
    assert settings.aliases == {"dm-web": "dm-0a1b2c"}


def test_the_page_names_every_check_of_doctor() -> None:
    named = section(PAGES[0], "JSON").partition("The checks are")[2]
    for step in (*COMPUTER, *MACHINE):
        assert re.search(rf"(?<![\w-]){step.name}(?![\w-])", named), step.name


def test_the_page_says_how_often_the_api_is_asked_in_doubt() -> None:
    text = " ".join(section(PAGES[1], "SETTINGS").split())
    assert f"at most {lifetime._DOUBTS} times in reuse_seconds" in text
