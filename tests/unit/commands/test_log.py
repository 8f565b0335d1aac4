from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from dcs_proxy.app import Options
from dcs_proxy.commands import log
from dcs_proxy.console.stdout import pause
from tests.unit.commands.conftest import Commands, Done

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


def test_new_lines_are_printed_as_they_come(
    commands: Commands, monkeypatch: pytest.MonkeyPatch
) -> None:
    followed: list[object] = []

    def follow(path: str, wait: object) -> list[str]:
        followed.append((path, wait))
        return LINES

    monkeypatch.setattr(log, "follow_log", follow)
    Path(commands.state.file("log")).touch()
    assert commands("log", "-f", "dm-bar").out.splitlines() == [LINES[2]]
    assert followed == [(commands.state.file("log"), pause)]


def test_a_log_that_does_not_exist_yet_is_told(commands: Commands) -> None:
    path = f"{commands.home}/.ssh/dcs-proxy/log"
    for words in ([], ["dm-foo"]):
        assert commands("log", *words) == Done(
            0, "", f"dcs-proxy: there is no log yet at {path}\n"
        )  # fmt: skip
    assert commands("log", "Foo_").code == 2


def test_a_machine_is_found_by_a_short_name_that_was_known(commands: Commands) -> None:
    name = "dm-017f22e2-79b0-7cc3-98c4-dc0c0c07c0de"
    commands.has(name.removeprefix("dm-"))
    assert commands("list").code == 0
    line = f"2026-01-01T00:00:00.000Z [1/1] ready machine={name} session=wssh-9"
    with Path(commands.state.file("log")).open("a") as file:
        file.write(f"{line}\n")
    assert commands("log", "c0de").out.splitlines()[-1] == line
    done = commands("log", "dm-none")
    assert done.err.splitlines() == [
        "dcs-proxy: dm-none: the log has nothing about this machine",
        "dcs-proxy: hint: for its name, type: dcs-proxy list; for the whole log: dcs-proxy log",
    ]
