"""The transcripts in tests/transcripts, played as they stand there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.emulator import Emulator
from tests.support.transcripts import Step, matches, new_user, parse, run_commands
from tests.support.user import User

TRANSCRIPTS = sorted((Path(__file__).parents[1] / "transcripts").glob("*.txt"))


@pytest.mark.parametrize("path", TRANSCRIPTS, ids=lambda path: path.stem)
def test_a_transcript_is_true(
    path: Path, start_emulator: Callable[..., Emulator], user: User, tmp_path: Path
) -> None:
    emulator = start_emulator("--machine", "dm-demo:sleeping", "--machine", "dm-web")
    new_user(user, emulator, tmp_path / "bin")
    user.environment["DEDALUS_API_KEY"] = emulator.key
    expected = parse(path.read_text())
    assert expected
    actual = run_commands(user, [step.command for step in expected])
    for wanted, shown in zip(expected, actual, strict=True):
        assert shown.status == wanted.status and matches(wanted.output, shown.output), (
            f"\n--- {path.name} says\n{wanted}\n--- but the command shows\n{shown}\n"
        )


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        ([], [], True),
        ([], ["a"], False),
        (["a"], [], False),
        (["a...c"], ["a.b.c"], True),
        (["a...c"], ["ac", "c"], False),
        (["a.c"], ["abc"], False),
        (["..."], [], True),
        (["a", "...", "d"], ["a", "b", "c", "d"], True),
        (["a", "...", "d"], ["a", "d"], True),
        (["a", "..."], ["b"], False),
    ],
)
def test_dots_stand_for_any_text_or_any_lines(
    expected: list[str], actual: list[str], same: bool
) -> None:
    assert matches(expected, actual) is same


def test_a_transcript_is_read_with_statuses_and_without_layout() -> None:
    steps = parse(
        "For the reader.\n\n$ true\n\n$ ls x\nls: x\n[2]\n\n$ printf 'a\\n\\nb'\na\n\nb\n"
    )
    assert steps == [
        Step("true"),
        Step("ls x", ("ls: x",), 2),
        Step("printf 'a\\n\\nb'", ("a", "", "b")),
    ]
