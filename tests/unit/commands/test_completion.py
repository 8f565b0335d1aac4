"""The scripts are run by real shells in tests/integration/test_completion.py."""

from __future__ import annotations

import pytest

from dcs_proxy.arguments import build_parser
from dcs_proxy.commands.completion import SHELLS
from tests.unit.commands.conftest import Commands


@pytest.mark.parametrize("shell", SHELLS)
def test_a_script_knows_commands_options_and_where_the_machines_are(
    commands: Commands, shell: str
) -> None:
    done = commands("completion", shell)
    assert (done.code, done.err) == (0, "")
    for command in build_parser().summaries:
        assert command in done.out
    for word in ("ssh-config", "_dcs_proxy_machines", "DCS_PROXY_HOME"):
        assert word in done.out
    assert ("compadd" in done.out) is (shell == "zsh")
    assert ("commandline -opc" in done.out) is (shell == "fish")


def test_hosts_files_and_directories_are_completed_as_such(commands: Commands) -> None:
    bash = commands("completion", "bash").out
    assert "_wake_pos_0_COMPGEN=_dcs_proxy_machines" in bash
    assert "_config_ssh___ssh_config_COMPGEN=_shtab_compgen_files" in bash
    assert "___home_COMPGEN=_shtab_compgen_dirs" in bash
    zsh = commands("completion", "zsh").out
    # Every word of several, not the first alone.
    assert '"(*):' in zsh or '"(-)*:' in zsh or "*::" in zsh
    # In a list of commands there is room for a few words.
    assert "wake machines, eight at a time" in zsh
    assert "Wake machines, eight at a time, and create" not in zsh
