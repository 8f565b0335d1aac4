from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dcs_proxy.app import Options
from dcs_proxy.commands import log

LINES = [
    "2026-01-01T00:00:00.000Z [1/1] ready machine=dm-foo session=wssh-1",
    "2026-01-01T00:00:00.001Z [1/1] ready machine=dm-foo-2 session=wssh-2",
    '2026-01-01T00:00:00.002Z [1/1] ready machine=dm-bar what="not dm-foo"',
    "2026-01-01T00:00:00.003Z [1/1] key source=DEDALUS_API_KEY",
    "2026-01-01T00:00:00.004Z [1/1] connected machine=dm-web login=wssh-1",
]


@pytest.mark.parametrize(
    ("host", "numbers"),
    [
        (None, [0, 1, 2, 3, 4]),
        ("dm-foo", [0, 4]),
        ("FOO", [0, 4]),
        ("web", [0, 4]),
        ("dm-bar", [2]),
        ("dm-none", []),
    ],
)
def test_the_log_of_a_machine_has_the_lines_that_name_it_as_the_machine(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    host: str | None,
    numbers: list[int],
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    config = tmp_path / "config.toml"
    config.write_text('[aliases]\ndm-web = "dm-foo"\n')
    (tmp_path / "state").mkdir(mode=0o700)
    (tmp_path / "state" / "log").write_text("".join(f"{line}\n" for line in LINES))
    arguments = argparse.Namespace(host=host, follow=False)
    assert log.run(arguments, Options(str(tmp_path / "state"), str(config))) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [LINES[number] for number in numbers]
    assert ("nothing about this machine" in shown.err) is (not numbers)
