"""The launcher, run by the real sh."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from shutil import which

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.openssh.config_text import Program
from dcs_proxy.publish.launcher import parse_launcher, render_launcher, write_launcher
from dcs_proxy.ssh.disconnect import disconnect_bytes

HINT = "run dcs-proxy config-ssh; if the program is gone, install it again first"
SAY = """
import os, sys
print(sys.argv[1:], os.environ.get("XDG_CONFIG_HOME"), "DCS_PROXY_CONFIG" in os.environ)
"""


def installed(tmp_path: Path, config: str | None = None) -> Program:
    start = tmp_path / "start it.py"
    start.write_text(SAY)
    state = tmp_path / "state"
    state.mkdir()
    words = (sys.executable, "-I", "-S", str(start))
    return Program(words, str(state), config, "/home/of config")


def launch(
    program: Program, *words: str, stderr: int = subprocess.PIPE, shell: str = "/bin/sh"
) -> subprocess.CompletedProcess[bytes]:
    environment = {"XDG_CONFIG_HOME": "/elsewhere", "DCS_PROXY_CONFIG": "/other"}
    return subprocess.run(
        [*shell.split(), program.launcher, *words],
        input=b"SSH-2.0-x\r\n", stdout=subprocess.PIPE, stderr=stderr, check=False,
        env=environment,
    )  # fmt: skip


def test_the_program_gets_its_words_and_the_config_that_config_ssh_found(tmp_path: Path) -> None:
    program = installed(tmp_path)
    assert write_launcher(program)
    done = launch(program, "prepare", "dm-$(x) y")
    said = (
        f"['--home', '{program.state_directory}', 'prepare', 'dm-$(x) y'] /home/of config False\n"
    )
    assert (done.stdout.decode(), done.stderr, done.returncode) == (said, b"", 0)


def test_a_config_file_that_was_named_is_named_again(tmp_path: Path) -> None:
    program = installed(tmp_path, "/c d/config.toml")
    write_launcher(program)
    assert b"'--config', '/c d/config.toml', 'prepare'" in launch(program, "prepare").stdout


def test_it_is_written_once(tmp_path: Path) -> None:
    program = installed(tmp_path)
    assert write_launcher(program) and not write_launcher(program)
    assert Path(program.launcher).stat().st_mode & 0o777 == 0o600


def test_a_program_that_was_removed_is_named(tmp_path: Path) -> None:
    program = installed(tmp_path)
    write_launcher(program)
    Path(program.words[-1]).unlink()
    done = launch(program, "prepare", "dm-foo")
    assert (done.returncode, done.stdout) == (3, b"")
    assert done.stderr.decode().splitlines() == [
        f"dcs-proxy: dcs-proxy has moved or was removed: {program.words[-1]}",
        f"dcs-proxy: hint: {HINT}",
    ]
    moved = "dcs-proxy has moved or was removed"
    done = launch(program, "--login", "me", "dm-foo", "22")
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout == disconnect_bytes(f"not connected: {moved}")
    done = launch(program, "--login", "me", "dm-foo", "22", stderr=subprocess.DEVNULL)
    assert done.stdout == disconnect_bytes(f"{moved}: {program.words[-1]}; hint: {HINT}")


def make_python(path: Path, kind: str) -> None:
    """Create a Python that cannot be started."""
    match kind:
        case "missing":
            return
        case "a broken link":
            path.symlink_to("/nowhere/python3")
        case "a directory":
            path.mkdir()
        case "of another architecture":
            path.write_bytes(b"\x7fELF\2\1\1" + bytes(9) + b"\2\0\xff\xff" + bytes(44))
        case "a script without its interpreter":
            path.write_text("#!/nowhere/python3\n")
    if kind not in ("a broken link", "not executable"):
        path.chmod(0o755)
    if kind == "not executable":
        path.write_text("")


KINDS = ["missing", "a broken link", "a directory", "not executable",
         "a script without its interpreter", "of another architecture"]  # fmt: skip
# Each is the /bin/sh of some system.
SHELLS = [words for words in ("dash", "bash --posix", "busybox sh") if which(words.split()[0])]
CASES = [(kind, shell) for kind in KINDS for shell in SHELLS]
# It runs such a file as a shell script.
CASES = [case for case in CASES if case != ("of another architecture", "busybox sh")]


@pytest.mark.parametrize(("kind", "shell"), CASES)
def test_a_python_that_cannot_be_started_is_named(tmp_path: Path, kind: str, shell: str) -> None:
    program = installed(tmp_path)
    python = tmp_path / "100% python"
    make_python(python, kind)
    program = Program((str(python), *program.words[1:]), program.state_directory)
    write_launcher(program)
    broken = "the Python of dcs-proxy cannot be started"
    hint = "run dcs-proxy config-ssh; if that fails too, install dcs-proxy again first"
    done = launch(program, "prepare", "dm-foo", shell=shell)
    assert (done.returncode, done.stdout) == (3, b"")
    said = done.stderr.decode().splitlines()[-2:]  # the shell may say something before
    assert said == [f"dcs-proxy: {broken}: {python}", f"dcs-proxy: hint: {hint}"]
    done = launch(program, "--login", "me", "dm-foo", "22", shell=shell)
    assert (done.returncode, done.stdout) == (3, disconnect_bytes(f"not connected: {broken}"))
    done = launch(program, "--login", "me", "d", "22", shell=shell, stderr=subprocess.DEVNULL)
    assert done.stdout == disconnect_bytes(f"{broken}: {python}; hint: {hint}")


PATHS = st.lists(
    st.text(alphabet="abc xyz.-_%/é+$#&;()~", min_size=1).map(lambda text: f"/{text}"),
    min_size=2, max_size=3,
)  # fmt: skip


@given(PATHS, PATHS, st.booleans())
def test_the_program_that_a_launcher_starts_is_read_back(
    words: list[str], more: list[str], named: bool
) -> None:
    program = Program((*words, "-I"), more[0], more[-1] if named else None, more[1])
    assert parse_launcher(render_launcher(program)) == program


@given(st.text())
def test_any_text_is_a_launcher_or_none(text: str) -> None:
    parse_launcher(text)
    parse_launcher(f'    exec {text} "$@"\n')


@pytest.mark.parametrize("config_home", ["", "/home/of config"])
@pytest.mark.parametrize("config", [None, "/c d/config.toml"])
def test_a_launcher_names_the_program_that_it_was_written_for(
    config: str | None, config_home: str
) -> None:
    program = Program(("/usr/bin/python3", "/a b.py"), "/state", config, config_home)
    assert parse_launcher(render_launcher(program)) == program


@pytest.mark.parametrize(
    "command",
    ["python3 start.py", "python3 start.py --home", "python3 start.py --home /s --config", "'",
     "python3 start.py --home '/s[1]'"],
)  # fmt: skip
def test_a_launcher_that_is_damaged_starts_no_program(command: str) -> None:
    assert parse_launcher(f'#!/bin/sh\n    exec {command} "$@"\n') is None


def test_only_a_config_home_that_config_ssh_found_is_set() -> None:
    words = ("/usr/bin/python3", "-I", "-S", "/p/start.py")
    assert "XDG_CONFIG_HOME" not in render_launcher(Program(words, "/s"))
    text = render_launcher(Program(words, "/s", config_home="/my config"))
    assert "\nXDG_CONFIG_HOME='/my config' && export XDG_CONFIG_HOME\n" in text
