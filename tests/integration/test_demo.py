"""contrib/demo, in a bare home directory."""

from __future__ import annotations

from pathlib import Path

from tests.integration.harness import User

DEMO = Path(__file__).parents[2] / "contrib" / "demo"


def test_the_demo_runs_a_command_and_leaves_nothing_behind(user: User) -> None:
    before = set(Path("/tmp").glob("dcs-demo.*"))
    done = user.run([str(DEMO), "--", "echo $DCS_MACHINE; exit 3"], timeout=600)
    assert done.stdout == "dm-demo\n", done.stderr
    assert done.returncode == 3
    assert not list(user.home.rglob("*ssh*"))
    assert set(Path("/tmp").glob("dcs-demo.*")) <= before
