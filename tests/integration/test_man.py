"""The man pages: as make-man writes them, fit to be read, and complete."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from dataclasses import fields
from pathlib import Path

import pytest

from dcs_proxy.cli import build_connect_parser, build_parser
from dcs_proxy.commands.status import Status
from dcs_proxy.errors import exit_codes
from dcs_proxy.local.settings import Settings, load_settings
from dcs_proxy.session.report import AgentStatus, CertificateStatus, SessionStatus
from dcs_proxy.syntax import read_syntax

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "contrib" / "man" / f"dcs-proxy.{section}" for section in (1, 5)]


def shown(page: Path) -> str:
    """Return a page as people read it, without bold and underlining."""
    done = subprocess.run(
        ["mandoc", "-Tutf8", "-Owidth=200", page], capture_output=True, text=True, check=True
    )
    return re.sub(".\b", "", done.stdout)


def test_the_pages_are_what_make_man_writes_now(tmp_path: Path) -> None:
    subprocess.run([sys.executable, ROOT / "contrib" / "dev" / "make-man", tmp_path], check=True)
    for page in PAGES:
        assert page.read_text() == (tmp_path / page.name).read_text(), "run make-man again"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_page_has_no_fault_that_mandoc_knows(page: Path) -> None:
    done = subprocess.run(
        ["mandoc", "-Tlint", "-Wwarning", page], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "")


def test_the_page_of_commands_has_all_that_help_has() -> None:
    page = shown(PAGES[0])
    program = read_syntax(build_parser())
    for syntax in (program, read_syntax(build_connect_parser()), *program.commands):
        for option in syntax.options:
            assert f"\n     {option.names[0]}" in page
        for _, typed in syntax.examples:
            assert f"\n           {typed}\n" in page
    for command in program.commands:
        assert f"\n   {command.name}\n     dcs-proxy {command.name}" in page
        assert command.description.split(". ")[0] in page
    for code, what in exit_codes():
        assert re.search(rf"^     {code} +{re.escape(what)}$", page, re.MULTILINE)


def test_the_page_of_commands_names_every_variable_that_is_read() -> None:
    sources = "".join(path.read_text() for path in (ROOT / "dcs_proxy").rglob("*.py"))
    read = set(re.findall(r"\b(?:DCS_PROXY|DEDALUS)_[A-Z_]+\b", sources))
    environment = shown(PAGES[0]).partition("\nENVIRONMENT\n")[2].partition("\nFILES\n")[0]
    named = set(re.findall(r"\b(?:DCS_PROXY|DEDALUS)_[A-Z_]+\b", environment))
    assert named == read and "DCS_PROXY_HOME" in read


def test_the_page_of_commands_names_every_key_of_json() -> None:
    told = shown(PAGES[0]).partition("\n   JSON\n")[2].partition("\nENVIRONMENT\n")[0]
    for kind in (Status, SessionStatus, CertificateStatus, AgentStatus):
        for field in fields(kind):
            assert re.search(rf"\b{field.name}\b", told), field.name


def test_the_page_of_settings_has_them_all_and_an_example_that_is_right(tmp_path: Path) -> None:
    page = shown(PAGES[1])
    keys = page.partition("\nSETTINGS\n")[2].partition("\nEXAMPLES\n")[0]
    assert re.findall(r"^     (\w+)\b", keys, re.MULTILINE) == [f.name for f in fields(Settings)]
    example = page.partition("\nEXAMPLES\n")[2].partition("\nSEE ALSO\n")[0]
    (tmp_path / "config.toml").write_text(textwrap.dedent(example))
    settings = load_settings({}, str(tmp_path / "config.toml"))
    assert (settings.wake_seconds, settings.agent) == (120, "user")
    assert settings.aliases == {"dm-web": "dm-0a1b2c"}
