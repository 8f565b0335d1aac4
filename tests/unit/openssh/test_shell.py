from __future__ import annotations

import os
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from dcs_proxy.errors import ConfigError
from dcs_proxy.local import programs
from dcs_proxy.openssh import shell as module
from dcs_proxy.openssh.shell import Shell, try_shell, try_shells

# Where the start file of each shell lies, below the home directory.
START_FILES = {
    "bash": ".bashrc", "zsh": ".zshenv", "fish": ".config/fish/config.fish", "tcsh": ".tcshrc",
}  # fmt: skip


def shells_here() -> list[str]:
    return [name for name in START_FILES if shutil.which(name)]


def environment(home: Path) -> dict[str, str]:
    return {"HOME": str(home), "PATH": os.environ["PATH"], "SHLVL": "1"}


@pytest.mark.parametrize("name", shells_here())
def test_a_silent_shell_has_no_output(name: str, tmp_path: Path) -> None:
    path = str(shutil.which(name))
    assert try_shell(path, environment(tmp_path)) == Shell(path)


@pytest.mark.parametrize("name", shells_here())
def test_a_shell_that_prints_is_seen(name: str, tmp_path: Path) -> None:
    start_file = tmp_path / START_FILES[name]
    start_file.parent.mkdir(parents=True, exist_ok=True)
    start_file.write_text("echo welcome to $HOME\n")
    shell = try_shell(str(shutil.which(name)), environment(tmp_path))
    assert (shell.output, shell.problem) == (f"welcome to {tmp_path}", "")
    assert START_FILES[name] in shell.start_files


@pytest.mark.parametrize("text", ["\\n\\n", "\\007", "\\033[2J"])
def test_what_cannot_be_seen_counts_as_output(text: str, tmp_path: Path) -> None:
    (tmp_path / ".bashrc").write_text(f"printf '{text}'\n")
    shell = try_shell(str(shutil.which("bash")), environment(tmp_path))
    assert shell.output and shell.output.isprintable()


def test_the_file_in_bash_env_is_read_too(tmp_path: Path) -> None:
    (tmp_path / "env").write_text("echo noise\n")
    own = {**environment(tmp_path), "BASH_ENV": str(tmp_path / "env")}
    assert try_shell(str(shutil.which("bash")), own).output == "noise"


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("#!/bin/sh\necho This account is not available.\nexit 1\n",
         'does not run commands (status 1) and says "This account is not available."'),
        ("#!/bin/sh\nexit 0\n", "does not run commands (status 0)"),
        ("#!/nowhere/sh\n", "cannot be run: No such file or directory"),
    ],
)  # fmt: skip
def test_a_shell_that_runs_no_commands_is_named(text: str, problem: str, tmp_path: Path) -> None:
    path = script(tmp_path / "shell", text)
    assert try_shell(path, environment(tmp_path)) == Shell(path, problem=problem)


def test_a_restricted_shell_is_of_no_use(tmp_path: Path) -> None:
    bash = shutil.which("bash")
    assert bash
    rbash = tmp_path / "rbash"
    rbash.symlink_to(bash)
    assert "does not run commands" in try_shell(str(rbash), environment(tmp_path)).problem


def test_a_shell_that_ssh_cannot_find_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "no-program").write_text("exit 73\n")
    missing = "cannot be run: No such file or directory"
    # ssh does not look for SHELL in PATH, and an empty one is not the default shell.
    for path, problem in {
        "": missing,
        "sh": missing,
        "/bin/sh -l": missing,
        str(tmp_path / "no-program"): "cannot be run: Permission denied",
    }.items():
        shell = try_shells({**environment(tmp_path), "SHELL": path})[0]
        assert (shell.path, shell.problem) == (path, problem)
        assert shell.label == (path or "an empty SHELL")
    assert try_shells(environment(tmp_path))[0].path == "/bin/sh"


def test_a_shell_that_never_ends_is_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(programs.start(*words, **options))
        return started[0]

    monkeypatch.setattr(module, "start", start)
    monkeypatch.setattr(module, "_LIMIT_S", 0.2)
    path = script(tmp_path / "shell", "#!/bin/sh\nexec sleep 1000\n")
    assert try_shell(path, environment(tmp_path)).problem == "did not run a command within 0.2 s"
    assert [process.returncode for process in started] == [-signal.SIGKILL]


def test_the_login_shell_is_tried_beside_the_one_in_the_environment(tmp_path: Path) -> None:
    own = script(tmp_path / "shell", '#!/bin/sh\nexec /bin/sh "$@"\n')
    tried = try_shells({**environment(tmp_path), "SHELL": own})
    assert tried[0] == Shell(own)
    assert len(tried) == 2


@pytest.mark.parametrize(
    ("name", "files"),
    [
        ("bash", "~/.bashrc, or the file in BASH_ENV"),
        ("zsh", "~/.zshenv"),
        ("fish", "~/.config/fish/config.fish"),
        ("tcsh", "~/.tcshrc or ~/.cshrc"),
        ("csh", "~/.cshrc"),
        ("ksh", "the file in ENV"),
        ("ksh93", "the file in ENV"),
        ("mksh", "the file in ENV"),
        ("nu", "its env.nu and config.nu"),
        ("elvish", "its rc.elv"),
        ("xonsh", "its start files"),
    ],
)
def test_the_start_files_of_each_shell_are_named(name: str, files: str) -> None:
    assert Shell(f"/usr/bin/{name}").start_files == files


@pytest.mark.parametrize(
    ("variable", "login_shell", "tried"),
    [
        ("/bin/zsh", "/bin/bash", ["/bin/zsh", "/bin/bash"]),
        ("/bin/bash", "/bin/bash", ["/bin/bash"]),
        ("/bin/bash", "", ["/bin/bash", "/bin/sh"]),
        ("/bin/bash", None, ["/bin/bash"]),
        ("", "/bin/bash", ["", "/bin/bash"]),
        (None, "/bin/sh", ["/bin/sh"]),
    ],
)
def test_the_shells_of_the_terminal_and_of_the_desktop_are_tried(
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None, login_shell: str | None, tried: list[str],
) -> None:  # fmt: skip
    def entry(uid: int) -> Any:
        assert uid == os.geteuid()
        if login_shell is None:
            raise KeyError(uid)
        return SimpleNamespace(pw_shell=login_shell)

    monkeypatch.setattr(module.pwd, "getpwuid", entry)
    monkeypatch.setattr(module, "try_shell", lambda path, environment: Shell(path))
    variables = {} if variable is None else {"SHELL": variable}
    assert [shell.path for shell in try_shells(variables)] == tried


@pytest.mark.parametrize("variable", ["/bin/bash", None])
def test_a_shell_that_prints_is_an_error_and_one_that_fails_is_none(
    monkeypatch: pytest.MonkeyPatch, variable: str | None
) -> None:
    variables = {} if variable is None else {"SHELL": variable}
    path = variable or "/bin/sh"
    for result in (Shell(path), Shell(path, problem="cannot be run")):
        monkeypatch.setattr(module, "try_shell", lambda p, e, result=result: result)
        module.check_shell_is_silent(variables)
    monkeypatch.setattr(module, "try_shell", lambda p, e: Shell(p, output="hello"))
    with pytest.raises(ConfigError, match=f'^your shell {path} prints something .*: "hello"$'):
        module.check_shell_is_silent(variables)
