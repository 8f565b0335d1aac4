"""README's commands, run as they stand there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from tests.integration.harness import Emulator, User
from tests.integration.secret_service import SecretService, Terminal

README = Path(__file__).parents[2] / "README.rst"
# These set up environments of their own: test_demo, test_package and the run itself show them.
ELSEWHERE = {"contrib/demo", "contrib/test", "pipx install ."}


def commands() -> list[str]:
    """Return every command of README's console blocks, in order."""
    blocks = re.findall(
        r"^\.\. code-block:: console\n\n((?:   .*\n|\n)+)", README.read_text(), re.MULTILINE
    )
    lines = [line.strip() for block in blocks for line in block.splitlines()]
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def install_programs(directory: Path, config: str) -> None:
    """Make ssh and scp read the user's config: they take the home from passwd, not from HOME."""
    directory.mkdir()
    for name in ("ssh", "scp"):
        program = directory / name
        program.write_text(f'#!/bin/sh\nexec {shutil.which(name)} -F "{config}" "$@"\n')
        program.chmod(0o755)
    program = directory / "dcs-proxy"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m dcs_proxy "$@"\n')
    program.chmod(0o755)


def test_the_commands_of_the_quick_start_work(
    start_emulator: Callable[..., Emulator], user: User, keyring: SecretService, tmp_path: Path
) -> None:
    first, *ours = [command for command in commands() if command not in ELSEWHERE]
    assert (first, len(ours)) == ("dcs-proxy login", 9)
    emulator = start_emulator(
        "--machine", "dm-foo", "--machine", "dm-ci-1:sleeping", "--wake-seconds", "0.5",
        "--home", str(tmp_path / "machines"),
    )  # fmt: skip
    (tmp_path / "machines" / "dm-foo").mkdir(parents=True)
    git = ["git", "init", "-q", str(tmp_path / "machines" / "dm-foo" / "repo")]
    subprocess.run(git, check=True, env=user.environment)
    install_programs(tmp_path / "bin", f"{user.home}/.ssh/config")
    (user.root / "file").write_text("text\n")
    (user.root / "tree").mkdir()
    (user.root / "tree" / "leaf").touch()
    user.environment["PATH"] = f"{tmp_path}/bin:{user.environment['PATH']}"
    user.environment["DEDALUS_BASE_URL"] = emulator.api
    terminal = Terminal(user, *first.split())
    terminal.read_until("API key for")
    terminal.type(f"{emulator.key}\n")
    assert terminal.finish() == 0, terminal.shown
    done = user.run(["sh", "-ex"], input="\n".join(f"{command} </dev/null" for command in ours))
    assert done.returncode == 0, done.stderr
    machine = tmp_path / "machines" / "dm-foo"
    assert (machine / "file").read_text() == "text\n"
    assert (machine / "tree" / "leaf").exists()
    assert (user.root / "repo" / ".git").is_dir()
