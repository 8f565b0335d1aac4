"""The list of contrib/dev/plausible: its bugs can still be put into the code."""

from __future__ import annotations

from pathlib import Path

from contrib.dev import plausible

ROOT = Path(plausible.__file__).parents[2]


def test_every_bug_of_the_list_can_be_put_into_the_code() -> None:
    bugs = plausible.read_bugs((ROOT / "contrib" / "dev" / "plausible.txt").read_text())
    assert len(bugs) > 300
    for bug in bugs:
        text = (ROOT / "dcs_proxy" / bug.file).read_text()
        assert plausible.apply(bug, text) != text
        assert (ROOT / bug.tests[0]).exists(), bug
