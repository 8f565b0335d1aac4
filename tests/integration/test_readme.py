"""README's commands, run as they stand there, and its other claims that can be checked."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import dcs_proxy
from tests.integration.harness import Emulator, User
from tests.integration.secret_service import SecretService, Terminal
from tests.integration.transcripts import Step, matches, new_user, parse, play

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.rst").read_text()
# These set up environments of their own: test_demo, test_package and the run itself show them.
ELSEWHERE = {"contrib/demo", "contrib/test", "pipx install ."}
OPENSSH_SAYS = {
    "Could not resolve hostname dm-foo",
    "Permission denied (publickey)",
    "Connection timed out during banner exchange",
    "mm_receive_fd: no message header",
    "Bad owner or permissions on ...",
}
# By OpenSSH, by the shell, or as command lines; only the page has them.
ELSEWHERE_SAID = {
    "invalid quotes",
    "terminating, 1 bad configuration options",
    "/bin/sh: 0: 3: Invalid argument",
    "ssh -A",
    "ssh -J hop dm-foo",
}


def steps() -> list[Step]:
    """Return every command of README's console blocks, in order."""
    blocks = re.findall(r"^\.\. code-block:: console\n\n((?:   .*\n|\n)+)", README, re.MULTILINE)
    found = parse("".join(re.sub(r"^   ", "", block, flags=re.MULTILINE) for block in blocks))
    assert {step.command for step in found} > ELSEWHERE
    return [step for step in found if step.command not in ELSEWHERE]


def test_the_commands_work_in_their_order(
    start_emulator: Callable[..., Emulator], user: User, keyring: SecretService, tmp_path: Path
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
    first, *expected = steps()
    terminal = Terminal(user, *first.command.split())
    terminal.read_until("API key for")
    terminal.type(f"{emulator.key}\n")
    assert terminal.finish() == 0, terminal.shown
    for wanted, shown in zip(expected, play(user, [s.command for s in expected]), strict=True):
        # Where README shows nothing, what is shown does not matter.
        same = not wanted.output or matches(wanted.output, shown.output)
        assert shown.status == 0 and same, f"\n--- README says\n{wanted}\n--- but\n{shown}\n"
    assert (machine / "file").read_text() == "text\n"
    assert (machine / "tree" / "leaf").exists()
    assert (user.home / "repo" / ".git").is_dir()
    # One for each machine, and one more after `close`.
    assert len(emulator.creates()) == 3


def messages() -> Iterator[re.Pattern[str]]:
    """Yield every text in the sources as a pattern, values in it standing for anything."""
    for path in Path(dcs_proxy.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+"
                         for p in node.values]  # fmt: skip
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [re.escape(node.value)]
            else:
                continue
            # A text that is nearly all values would fit anything.
            if len("".join(parts).replace(".+", "")) > 15:
                yield re.compile("".join(parts), re.DOTALL)


def quoted_messages(text: str) -> set[str]:
    """Return the messages that head the paragraphs of a troubleshooting text."""
    heads = re.findall(r"^(``.+``)\n   \S", text, re.MULTILINE)
    return {message for head in heads for message in re.findall(r"``(.+?)``", head)}


def is_in_sources(message: str, patterns: list[re.Pattern[str]]) -> bool:
    """Return whether the program can show a message, which may be the beginning of a longer one, or
    end with a text that several messages have.
    """
    text = message.removeprefix("... ")
    whole = (text, *(f"{text}{mark} ..." for mark in ("", ":", ";", ",")))
    return any(
        pattern.fullmatch(each) or re.fullmatch(f".+ {pattern.pattern}", each)
        for pattern in patterns
        for each in whole
    )


def test_troubleshooting_quotes_what_people_really_see() -> None:
    section = README.partition("\nTroubleshooting\n")[2]
    page = (ROOT / "contrib" / "docs" / "troubleshooting.rst").read_text()
    readme, quoted = quoted_messages(section), quoted_messages(page)
    assert len(readme) > 10 and readme <= quoted
    assert readme > OPENSSH_SAYS - ELSEWHERE_SAID
    patterns = list(messages())
    unknown = quoted - OPENSSH_SAYS - ELSEWHERE_SAID
    assert {message for message in unknown if not is_in_sources(message, patterns)} == set()
