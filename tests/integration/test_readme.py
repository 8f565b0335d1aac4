"""The commands of README and of the pages for users, run as they are written there."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.secret_service import SecretService
from tests.support.terminal import Terminal
from tests.support.transcripts import Step, matches, new_user, parse, run_commands
from tests.support.user import User

ROOT = Path(__file__).parents[2]
README = ROOT / "README.rst"
PAGES = [
    README,
    *(ROOT / "contrib" / "docs" / f"{name}.rst" for name in ("ci", "editors", "settings")),
]
# These set up environments of their own: test_demo, test_package and the run itself show them.
ELSEWHERE = {"contrib/demo", "contrib/test", "pipx install ."}
LOGIN = "dcs-proxy login"


def steps(page: Path) -> list[Step]:
    """Return every command of a page's console blocks, in order."""
    blocks = re.findall(
        r"^\.\. code-block:: console\n\n((?:   .*\n|\n)+)", page.read_text(), re.MULTILINE
    )
    return parse("".join(re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in blocks))


def log_in(user: User, emulator: Emulator) -> None:
    """Type the API key, as the command asks for it."""
    terminal = Terminal(user, *LOGIN.split())
    terminal.wait_for("API key for")
    terminal.type(f"{emulator.key}\n")
    assert terminal.finish() == 0, terminal.shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_work_in_their_order(
    page: Path,
    start_emulator: Callable[..., Emulator],
    user: User,
    keyring: SecretService,
    tmp_path: Path,
) -> None:
    machine = tmp_path / "machines" / "dm-foo"
    machine.mkdir(parents=True)
    emulator = start_emulator(
        "--machine", "dm-foo:sleeping", "--machine", "dm-ci-1:sleeping", "--wake-seconds", "0.5",
        "--home", str(machine.parent),
    )  # fmt: skip
    git = ["git", "init", "-q", str(machine / "repo")]
    subprocess.run(git, check=True, env=user.environment)
    new_user(user, emulator, tmp_path / "bin")
    (user.home / "file").write_text("text\n")
    (user.home / "tree").mkdir()
    (user.home / "tree" / "leaf").touch()
    expected = [step for step in steps(page) if step.command not in ELSEWHERE]
    if expected[0].command == LOGIN:
        log_in(user, emulator)
        del expected[0]
    else:
        user.environment["DEDALUS_API_KEY"] = emulator.key
    assert expected
    for wanted, shown in zip(
        expected, run_commands(user, [s.command for s in expected]), strict=True
    ):
        # Where the page shows no output, it does not matter.
        same = not wanted.output or matches(wanted.output, shown.output)
        assert shown.status == 0 and same, f"\n--- the page says\n{wanted}\n--- but\n{shown}\n"
    if page == README:
        assert (machine / "file").read_text() == "text\n"
        assert (machine / "tree" / "leaf").exists()
        assert (user.home / "repo" / ".git").is_dir()
        # One for each machine, and one more after `close`.
        assert len(emulator.creates()) == 3


def test_the_first_page_has_the_commands_that_set_everything_up() -> None:
    commands = [step.command for step in steps(README)]
    assert commands[:2] == ["contrib/demo", "contrib/test"]
    assert "pipx install ." in commands
