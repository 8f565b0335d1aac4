"""contrib/demo, in a bare home directory, and the picture of it."""

from __future__ import annotations

import re
from pathlib import Path

from contrib.dev import pictures
from tests.support.user import User


def demos() -> set[Path]:
    """Return the directories of running demos."""
    return set(Path("/tmp").glob("dcs-demo.*"))


def without_times(lines: list[str]) -> list[str]:
    return [re.sub(r"\d+ s\b", "N s", line) for line in lines]


def test_the_demo_runs_a_command_and_leaves_nothing_behind(user: User) -> None:
    before = demos()
    done = user.run([str(pictures.DEMO), "--", "echo $DCS_MACHINE; exit 3"], timeout=600)
    assert done.stdout == "dm-demo\n", done.stderr
    assert done.returncode == 3
    assert not list(user.home.rglob("*ssh*"))
    assert demos() <= before


def test_the_picture_shows_what_the_demo_prints() -> None:
    """Write it again with contrib/dev/pictures if what the demo prints has changed."""
    before = demos()
    shown = pictures.show(pictures.DEMO_PICTURE, 80)
    drawn = pictures.read((pictures.DOCS / "demo.svg").read_text())
    assert without_times(drawn) == without_times(shown)
    assert demos() <= before


def test_the_demos_shell_has_a_world_in_which_everything_works() -> None:
    before = demos()
    with pictures.open_demo(120) as terminal:
        for command, text in (
            ("dcs-proxy config-ssh", ".ssh/config: already up to date, 4 machines listed"),
            ("dcs-proxy wake --all", "dm-ci-2: ready after"),
            ("dcs-proxy status", "4 identities"),
            ("dcs-proxy doctor dm-web", "✓ login           ssh dm-web true"),
            ("scp -q ~/.ssh/config dm-web:copy && ssh dm-web ls", "copy"),
            # The user's own keyring is out of reach.
            ("dcs-proxy login", "this computer has no usable system keyring"),
            ("dcs-proxy uninstall --yes", "dcs-proxy: now remove the program itself"),
        ):
            start = len(terminal.lines())
            terminal.type(pictures.Step(command))
            shown = "\n".join(terminal.lines()[start:])
            assert text in shown and "✗" not in shown, shown
            if "doctor" in command:
                # Each check is one paragraph, whatever its length.
                lines = terminal.lines()[start:-1]
                assert all(re.match(r"✓ \S| {18}\S", line) for line in lines), shown
    assert demos() <= before
