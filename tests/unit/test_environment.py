"""contrib/dev/environment.sh, which installs what the tests need, with package managers that only
note their arguments.
"""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
INSTALLERS = ("apt-get", "npm", "pip", "sudo")


def run(tmp_path: Path, script: str) -> tuple[str, str]:
    """Run shell commands after the file was sourced; return what installers got, and stderr."""
    called = tmp_path / "called"
    called.touch()
    programs = tmp_path / "bin"
    programs.mkdir()
    for name in INSTALLERS:
        program = programs / name
        program.write_text(f'#!/bin/sh\necho {name} "$@" >>"{called}"\n')
        program.chmod(0o755)
    done = subprocess.run(
        ["sh", "-euc", f". {ROOT}/contrib/dev/environment.sh\nvenv={tmp_path}/venv\n{script}"],
        env={**os.environ, "PATH": f"{programs}:{os.environ['PATH']}"}, cwd=ROOT,
        capture_output=True, text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return called.read_text(), done.stderr


@pytest.mark.parametrize(
    ("script", "said"),
    [
        ("need no-such-program=its-package", "offline: not installed.* its-package"),
        ("make_node_modules ssh2", "no npm packages"),
        ("make_old_sdk", "offline: no dedalus-sdk"),
    ],
)
def test_offline_installs_nothing_and_says_what_is_missing(
    tmp_path: Path, script: str, said: str
) -> None:
    called, errors = run(tmp_path, f"offline=yes\n{script}")
    assert called == ""
    assert re.search(said, errors)


def test_what_is_installed_is_printed_first(tmp_path: Path) -> None:
    called, errors = run(tmp_path, "mkdir -p $venv/node\nmake_node_modules ssh2")
    assert called.startswith("npm install") and called.rstrip().endswith("ssh2")
    assert "installing with npm: ssh2\n" in errors


def test_the_readme_names_what_comes_from_npm(tmp_path: Path) -> None:
    called, _ = run(tmp_path, "mkdir -p $venv/node $venv/sdk-oldest/dedalus_sdk\nmake_outsiders")
    words = called.split()
    packages = words[words.index(f"{tmp_path}/venv/node") + 1 :]
    names = {package.partition("@npm:")[2].partition("@")[0] or package for package in packages}
    readme = (ROOT / "README.rst").read_text()
    assert len(names) == 3 and all(f"``{name}``" in readme for name in names)


def test_no_variable_of_a_script_is_changed(tmp_path: Path) -> None:
    # contrib/dev/versions names its virtual environments by $version; sh has no local variables.
    prepared = "mkdir -p $venv/node $venv/sdk-oldest/dedalus_sdk\nversion=3.10\n"
    _, errors = run(tmp_path, f'{prepared}make_outsiders\nsay "version $version"')
    assert "version 3.10\n" in errors
