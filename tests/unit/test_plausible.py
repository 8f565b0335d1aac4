"""The list of contrib/dev/plausible: its bugs can still be put into the code."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from contrib.dev import plausible

ROOT = Path(plausible.__file__).parents[2]


def test_every_bug_of_the_list_can_be_put_into_the_code() -> None:
    bugs = plausible.read_bugs((ROOT / "contrib" / "dev" / "plausible.txt").read_text())
    assert len(bugs) > 300
    for bug in bugs:
        text = (ROOT / "dcs_proxy" / bug.file).read_text()
        assert plausible.apply(bug, text) != text
        assert (ROOT / bug.tests[0]).exists(), bug


@pytest.mark.parametrize("command", [["python", "-I", "-m", "dcs_proxy.cli"], ["dcs-proxy"]])
def test_programs_in_a_copy_run_the_copy(tmp_path: Path, command: list[str]) -> None:
    """As those do that ssh starts, without PYTHONPATH; with the packages of this environment."""
    package = tmp_path / "0" / "dcs_proxy"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text(
        "import shtab\ndef main(): print('the copy')\nif __name__ == '__main__': main()\n"
    )
    programs = plausible.make_python(tmp_path / "0")
    done = subprocess.run(
        [programs / command[0], *command[1:]], cwd="/", capture_output=True, text=True, check=False
    )
    assert (done.stdout, done.stderr) == ("the copy\n", "")
