"""Completion, as bash, zsh and fish do it: what they would offer for a line that is typed.

bash and zsh run on a terminal; keys of their own insert every candidate into the line and write
the line to a file.  fish can be asked.
"""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from dcs_proxy.arguments import Parser, build_parser
from dcs_proxy.commands import completion
from tests.support.emulator import Emulator
from tests.support.terminal import Terminal
from tests.support.user import User

_INSERT_ALL, _SHOW = "\x14", "\x07"  # Control-T, Control-G
_RC = {
    "bash": """
PS1='prompt> '
source "$SCRIPT"
bind 'set completion-query-items 0'
bind '"\\C-t": insert-completions'
bind -x '"\\C-g": printf "%s\\n" "$READLINE_LINE" >answer'
""",
    "zsh": """
PS1='prompt> '
[[ -n $EVALUATED ]] || fpath=("${SCRIPT:h}" $fpath)
autoload -Uz compinit
compinit -u -D
[[ -z $EVALUATED ]] || eval "$(<$SCRIPT)"
zle -C all-matches complete-word _generic
zstyle ':completion:all-matches::::' completer _all_matches _complete
zstyle ':completion:all-matches:*' insert yes
bindkey '^T' all-matches
show() { print -r -- "$BUFFER" >answer }
zle -N show
bindkey '^G' show
""",
}
MACHINES = ["dm-api", "dm-web", "dm-worker-2"]
COMMANDS = sorted(build_parser().summaries)


class Shells:
    """Asks a shell on a terminal, or fish, what it offers, as `user`, who has some machines."""

    def __init__(self, user: User, directory: Path, printed: Callable[[str], str]) -> None:
        self.user = user
        self.directory = directory
        self.printed = printed
        for name in ("alone.txt", "also.txt", "home.txt"):
            (user.root / name).touch()
        user.state.mkdir()
        # The last lines are none that we write: they must run nothing and be offered to nobody.
        lines = [*MACHINES, "dm-$(touch ran)", "dm-`touch ran`", "other", "dm-a b", "dm-;x"]
        (user.state / "machines").write_text("\n".join(lines) + "\n")
        self.script = directory / "_dcs-proxy"
        self._forbid("dcs-proxy", "python", "python3", "curl")

    def _forbid(self, *programs: str) -> None:
        """Let the programs that completion must not start leave a mark."""
        bin_directory = self.directory / "bin"
        bin_directory.mkdir()
        for name in programs:
            (bin_directory / name).write_text(f'#!/bin/sh\necho {name} >>"{self.mark}"\n')
            (bin_directory / name).chmod(0o755)
        self.user.environment["PATH"] = f"{bin_directory}:{os.environ['PATH']}"

    @property
    def mark(self) -> Path:
        return self.directory / "started"

    def offered(
        self, shell: str, line: str, *, script: str = "", evaluated: bool = False
    ) -> list[str]:
        """Return the candidates for the last word of `line`, sorted, without final slashes.

        The script is the program's, unless one is given.
        """
        self.script.write_text(script or self.printed(shell))
        if shell == "fish":
            ask = "source $argv[1]; complete -C $argv[2]"
            command = ["fish", "--no-config", "-c", ask, str(self.script), line]
            answer = self.user.run(command)
            assert (answer.returncode, answer.stderr) == (0, "")
            words = [found.split("\t")[0] for found in answer.stdout.splitlines()]
        else:
            # The candidates take the place of the last word; none leave the line as it was.
            start = line[: line.rindex(" ") + 1]
            answer_line = self._typed(shell, line, evaluated)
            assert answer_line.startswith(start), answer_line
            words = [] if answer_line == line else answer_line[len(start) :].split()
        return sorted(word.rstrip("/") for word in words)

    def _typed(self, shell: str, line: str, evaluated: bool) -> str:
        answer = self.user.root / "answer"
        answer.unlink(missing_ok=True)
        rc = self.directory / (".zshrc" if shell == "zsh" else "bashrc")
        rc.write_text(_RC[shell])
        arguments = {"bash": ["--noprofile", "--rcfile", str(rc)], "zsh": ["-d"]}[shell]
        environment = {
            **self.user.environment,
            "TERM": "xterm",
            "SCRIPT": str(self.script),
            "ZDOTDIR": str(self.directory),
            "EVALUATED": "yes" if evaluated else "",
        }
        with Terminal(self.user, shell, *arguments, "-i", env=environment) as terminal:
            terminal.wait_for("prompt> ")
            terminal.type(f"{line}{_INSERT_ALL}{_SHOW}")
            terminal.read_until(lambda: answer.exists() and answer.read_text()[-1:] == "\n")
        return answer.read_text().removesuffix("\n")


@pytest.fixture(scope="module")
def printed() -> Iterator[Callable[[str], str]]:
    """Return the script that the program prints for a shell; it runs once for each shell."""
    user = User()

    @functools.cache
    def script(shell: str) -> str:
        done = user.proxy("completion", shell)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    yield script
    user.close()


@pytest.fixture
def shells(user: User, tmp_path: Path, printed: Callable[[str], str]) -> Shells:
    return Shells(user, tmp_path, printed)


LINES = [
    ("dcs-proxy ", COMMANDS),
    ("dcs-proxy config-", ["config-ssh"]),
    ("dcs-proxy nothing-like-it", []),
    ("dcs-proxy w", ["wake"]),
    ("dcs-proxy wake dm-api dm-w", ["dm-web", "dm-worker-2"]),
    ("dcs-proxy doctor --bundle x dm-a", ["dm-api"]),
    ("dcs-proxy log dm-api dm-", []),
    ("dcs-proxy --ver", ["--version"]),
    ("dcs-proxy config-ssh --d", ["--dry-run"]),
    ("dcs-proxy --config x config-ssh --d", ["--dry-run"]),
    ("dcs-proxy doctor ", MACHINES),
    ("dcs-proxy doctor dm-w", ["dm-web", "dm-worker-2"]),
    ("dcs-proxy doctor dm-web dm-", []),
    ("dcs-proxy --home elsewhere doctor ", ["dm-there"]),
    ("dcs-proxy --home ~/elsewhere doctor ", ["dm-at-home"]),
    ("dcs-proxy --home nowhere doctor ", []),
    ("dcs-proxy completion ", ["bash", "fish", "zsh"]),
    ("dcs-proxy completion z", ["zsh"]),
    ("dcs-proxy emulator --without ", ["certificate", "host-trust"]),
    ("dcs-proxy emulator --org-id ", []),
    ("dcs-proxy --config al", ["alone.txt", "also.txt"]),
    ("dcs-proxy --home ho", ["home"]),
]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(("line", "expected"), LINES)
def test_a_shell_offers(shells: Shells, shell: str, line: str, expected: list[str]) -> None:
    for directory, name in {"elsewhere": "dm-there", "home/elsewhere": "dm-at-home"}.items():
        (shells.user.root / directory).mkdir()
        (shells.user.root / directory / "machines").write_text(f"{name}\n")
    assert shells.offered(shell, line) == expected
    assert not (shells.user.root / "ran").exists()
    assert not shells.mark.exists(), shells.mark.read_text()


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_list_and_config_ssh_saw_last_is_offered(
    start_emulator: Callable[..., Emulator], shells: Shells, shell: str
) -> None:
    user = shells.user
    user.settings('[aliases]\ndm-alias = "dm-one"\n')
    user.use(start_emulator("--machine", "dm-one"), config=False)
    assert user.proxy("list").returncode == 0
    assert shells.offered(shell, "dcs-proxy wake ") == ["dm-alias", "dm-one"]
    user.use(start_emulator("--machine", "dm-two", "--machine", "dm-three"))
    assert shells.offered(shell, "dcs-proxy wake dm-t") == ["dm-three", "dm-two"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_without_a_list_no_machine_is_offered(shells: Shells, shell: str) -> None:
    (shells.user.state / "machines").unlink()
    assert shells.offered(shell, "dcs-proxy doctor ") == []


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_the_default_state_directory_is_found(shells: Shells, shell: str) -> None:
    del shells.user.environment["DCS_PROXY_HOME"]
    default = shells.user.home / ".ssh" / "dcs-proxy"
    default.mkdir(parents=True)
    shutil.copy(shells.user.state / "machines", default)
    assert shells.offered(shell, "dcs-proxy doctor ") == MACHINES


def parser_with_operands_of_every_number() -> Parser:
    parser = Parser(prog="dcs-proxy")
    commands = parser.add_subparsers()
    for name, numbers in {"ask": ["?"], "wake": ["+"], "send": [None, "*"]}.items():
        command = parser.commands[name] = commands.add_parser(
            name, help='it\'s "so": [$(touch ran)] `touch ran` 100%'
        )
        command.add_argument("--more", help='it\'s "so": [$(touch ran)] `touch ran` 100%%')
        for number in numbers:
            command.add_argument(f"host{number}", metavar="HOST", nargs=number, help="[a]: b")
    return parser


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("dcs-proxy w", ["wake"]),
        ("dcs-proxy ask dm-a", ["dm-api"]),
        ("dcs-proxy ask dm-api dm-", []),
        ("dcs-proxy wake dm-w", ["dm-web", "dm-worker-2"]),
        ("dcs-proxy wake dm-api dm-web dm-wo", ["dm-worker-2"]),
        ("dcs-proxy send dm-api dm-web dm-wo", ["dm-worker-2"]),
    ],
)
def test_operands_of_every_number_are_completed(
    shells: Shells, shell: str, line: str, expected: list[str]
) -> None:
    script = completion.render(parser_with_operands_of_every_number(), shell)
    assert shells.offered(shell, line, script=script) == expected
    assert not (shells.user.root / "ran").exists()


def test_zsh_takes_the_script_evaluated_too(shells: Shells) -> None:
    assert shells.offered("zsh", "dcs-proxy doctor ", evaluated=True) == MACHINES


def test_the_script_is_the_same_for_every_user(
    start_emulator: Callable[..., Emulator], user: User, printed: Callable[[str], str]
) -> None:
    """So that one serves all the tests above: a script holds no names and no paths of its user."""
    user.use(start_emulator("--machine", "dm-one"))
    user.settings('[aliases]\ndm-alias = "dm-one"\n')
    for shell in ("bash", "zsh", "fish"):
        assert user.proxy("completion", shell).stdout == printed(shell)
