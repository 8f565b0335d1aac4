from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import dcs_proxy
from dcs_proxy import __main__

PACKAGE = Path(dcs_proxy.__file__).parent
AGAIN = "dcs-proxy: hint: install dcs-proxy again, then run dcs-proxy config-ssh\n"
NEWER = "dcs-proxy: hint: install dcs-proxy with a newer Python, then run dcs-proxy config-ssh\n"


def run_without(module: str, file: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run one of our files in a Python that lacks a module."""
    code = (
        "import sys, runpy\n"
        f"sys.modules[{module!r}] = None\n"
        f"sys.argv = {[file, *words]!r}\n"
        f"runpy.run_path({str(PACKAGE / file)!r}, run_name='__main__')\n"
    )
    return subprocess.run(
        [sys.executable, "-I", "-c", code], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "words", [("version",), ("--home", "/nowhere", "prepare", "dm-foo"),
              ("--home", "/nowhere", "--login", "root", "dm-foo", "22")],
)  # fmt: skip
@pytest.mark.parametrize("file", ["__main__.py", "start.py"])
@pytest.mark.parametrize("module", ["_socket", "fcntl", "select", "json", "dcs_proxy.app"])
def test_a_python_that_lacks_a_module_is_named_in_two_lines(
    module: str, file: str, words: tuple[str, ...]
) -> None:
    done = run_without(module, file, *words)
    assert (done.returncode, done.stdout) == (3, "")
    missing = f"cannot import {module}, which dcs-proxy needs"
    assert done.stderr == f"dcs-proxy: {sys.executable} {missing}\n{AGAIN}"


def test_a_python_that_is_too_old_is_named(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dcs_proxy.cli", None)
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    assert __main__.run() == 3
    why = "is Python 3.9, and dcs-proxy needs 3.10 or later"
    assert capsys.readouterr().err == f"dcs-proxy: {sys.executable} {why}\n{NEWER}"
    monkeypatch.setattr(sys, "executable", "")  # as in a program that embeds Python
    assert __main__.run() == 3
    assert capsys.readouterr().err == f"dcs-proxy: this Python {why}\n{NEWER}"


def test_windows_is_told_of_wsl(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "dcs_proxy.cli", None)
    monkeypatch.setattr("os.name", "nt")
    assert __main__.run() == 3
    assert capsys.readouterr().err == (
        "dcs-proxy: dcs-proxy does not run on Windows itself\n"
        "dcs-proxy: hint: install it in WSL, and use its ssh\n"
    )


INTERRUPTED = """\
import os, signal, sys
class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == {name!r}:
            os.kill(os.getpid(), signal.SIGINT)
            print("still here", flush=True)
sys.meta_path.insert(0, Finder())
import runpy
sys.argv = ["x", "version"]
runpy.run_path({path!r}, run_name="__main__")
"""


@pytest.mark.parametrize("is_ignored", [False, True])
@pytest.mark.parametrize(
    ("file", "name"), [("start.py", "site"), ("start.py", "dcs_proxy.app"),
                       ("__main__.py", "dcs_proxy.cli"), ("__main__.py", "dcs_proxy.app")],
)  # fmt: skip
def test_ctrl_c_during_an_import_leaves_no_traceback(
    file: str, name: str, is_ignored: bool
) -> None:
    code = INTERRUPTED.format(name=name, path=str(PACKAGE / file))
    program = [sys.executable, "-I", *(["-S"] if name == "site" else []), "-c", code]
    ignoring = ["sh", "-c", "trap '' INT; exec \"$@\"", "sh"]
    done = subprocess.run(
        [*(ignoring if is_ignored else []), *program], capture_output=True, text=True, check=False
    )
    if is_ignored:
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("still here\ndcs-proxy ")
    else:
        assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")


@pytest.mark.parametrize(
    ("at_start", "once_it_runs"),
    [(signal.default_int_handler, signal.default_int_handler), (signal.SIG_IGN, signal.SIG_IGN)],
)
def test_ctrl_c_is_the_programs_own_once_it_runs_unless_it_is_ignored(
    monkeypatch: pytest.MonkeyPatch, at_start: Any, once_it_runs: Any
) -> None:
    seen = []
    before = signal.signal(signal.SIGINT, at_start)

    def main() -> int:
        seen.append(signal.getsignal(signal.SIGINT))
        return 0

    monkeypatch.setattr("dcs_proxy.cli.main", main)
    try:
        assert __main__.run() == 0
    finally:
        signal.signal(signal.SIGINT, before)
    assert seen == [once_it_runs]


def test_run_by_path_it_finds_what_is_installed_beside_it(tmp_path: Path) -> None:
    package, other = tmp_path / "site" / "dcs_proxy", tmp_path / "other"
    for directory in (package, other):
        directory.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "cli.py").write_text("import needed\ndef main():\n    return needed.status\n")
    (package / "__main__.py").write_bytes((PACKAGE / "__main__.py").read_bytes())
    (package.parent / "needed.pth").write_text(f"{other}\n")
    (other / "needed.py").write_text("status = 7\n")
    # As start.py is run: without PYTHONPATH and the site-packages of this Python.
    command = [sys.executable, "-I", "-S", str(package / "__main__.py")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (7, "", "")


def test_a_damaged_file_of_ours_is_named(tmp_path: Path) -> None:
    package = tmp_path / "dcs_proxy"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "cli.py").write_text("def main(:\n")
    (package / "__main__.py").write_bytes((PACKAGE / "__main__.py").read_bytes())
    done = subprocess.run(
        [sys.executable, "-m", "dcs_proxy", "version"],
        cwd=tmp_path, env={}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (3, "")
    first, second = done.stderr.splitlines(keepends=True)
    assert first.startswith(f"dcs-proxy: {sys.executable} cannot load dcs-proxy: invalid syntax ")
    assert "(cli.py, line 1)" in first
    assert second == AGAIN


def test_the_floor_is_that_of_the_installation() -> None:
    needed = ".".join(map(str, __main__._NEEDS))
    assert f"python_requires = >={needed}\n" in (PACKAGE.parent / "setup.cfg").read_text()
