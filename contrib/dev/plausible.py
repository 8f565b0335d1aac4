"""Apply the bugs of plausible.txt to a copy of the checkout, and run the tests of each.

First every bug has to apply, and all of these tests have to pass without a bug.

The file holds blocks like this one; lines that begin with "#" are comments::

    @ ssh/agent.py: tests/unit/ssh/test_agent.py -k owner
    - return uid in (0, os.getuid())
    + return True

The first line names a file below dcs_proxy, and what pytest is given; "unit" stands for the unit
tests of that module.  The lines after "-" must occur once in the file (without their indentation);
those after "+" replace them.  Exits with status 1 if a test run passes with a bug in the code.
Usage: plausible.py CHECKOUT WORKPLACE [TEXT...]
"""

from __future__ import annotations

import os
import queue
import shlex
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

LIMIT_S, TEST_LIMIT_S = 300, 60


@dataclass
class Bug:
    """One bug: in `file`, `old` lines become `new` ones; `tests` are pytest's arguments."""

    file: str
    tests: list[str]
    old: list[str] = field(default_factory=list)
    new: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.file}: {' / '.join(self.old)} → {' / '.join(self.new) or 'nothing'}"


def main() -> int:
    checkout, workplace, *texts = sys.argv[1:]
    bugs = read_bugs(Path(checkout, "contrib/dev/plausible.txt").read_text())
    bugs = [bug for bug in bugs if not texts or any(text in str(bug) for text in texts)]
    count = max(1, (os.cpu_count() or 2) // 2)
    copies_of = [copy_of(Path(checkout), Path(workplace, str(each))) for each in range(count)]
    copies: queue.SimpleQueue[Path] = queue.SimpleQueue()
    for copy in copies_of:
        make_python(copy)
        copies.put(copy)

    def try_bug(bug: Bug) -> bool:
        copy = copies.get()
        try:
            return is_noticed(bug, copy)
        finally:
            copies.put(copy)

    for bug in bugs:
        apply(bug, (copies_of[0] / "dcs_proxy" / bug.file).read_text())
    for arguments in sorted({tuple(bug.tests) for bug in bugs}):
        if not run_tests(copies_of[0], arguments):
            raise SystemExit(f"fails without any bug: {shlex.join(arguments)}")
    survived = 0
    with ThreadPoolExecutor(count) as pool:
        for bug, noticed in zip(bugs, pool.map(try_bug, bugs), strict=True):
            survived += not noticed
            print("noticed " if noticed else "SURVIVED", bug, flush=True)
    print(f"{len(bugs)} bugs, {survived} of them noticed by no test")
    return 1 if survived else 0


def read_bugs(text: str) -> list[Bug]:
    """Return the bugs in the text of plausible.txt.  Raises ValueError."""
    bugs: list[Bug] = []
    for line in text.splitlines():
        mark, rest = line[:1], line[1:].strip()
        if mark == "@":
            file, _, tests = rest.partition(":")
            unit = f"tests/unit/{file}".replace(".py", "")
            head, _, name = unit.rpartition("/")
            words = shlex.split(tests.replace("unit", f"{head}/test_{name}.py", 1)
                                if tests.split()[0] == "unit" else tests)  # fmt: skip
            bugs.append(Bug(file, words))
        elif mark in ("-", "+"):
            if mark == "-":
                bugs[-1].old.append(rest)
            else:
                bugs[-1].new.append(line[1:].removeprefix(" ").rstrip())
        elif mark not in ("", "#"):
            raise ValueError(line)
    return bugs


def copy_of(checkout: Path, copy: Path) -> Path:
    """Copy the files of a checkout, committed or not, to `copy`, which is replaced."""
    shutil.rmtree(copy, ignore_errors=True)
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=checkout, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        if name and (checkout / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(checkout / name, copy / name)
    return copy


def make_python(copy: Path) -> Path:
    """Make a virtual environment for a copy; return its ``bin`` directory.

    Its programs run the copy, with the packages of ours.  In our own, those that ssh starts without
    PYTHONPATH would run the checkout, which is installed there, and has no bugs.
    """
    home = copy.with_name(f"{copy.name}-python")
    venv.create(home, symlinks=True, clear=True)
    packages = Path(sysconfig.get_path("purelib"))
    # Python ignores .pth files in a directory that a .pth file has added, like the checkout's here.
    added = home / packages.relative_to(sys.prefix) / "copy.pth"
    added.write_text(f"{copy}\n{packages}\n")
    script = home / "bin" / "dcs-proxy"
    script.write_text(
        f"#!{home}/bin/python\nimport sys\nfrom dcs_proxy.cli import main\nsys.exit(main())\n"
    )
    script.chmod(0o755)
    return script.parent


def apply(bug: Bug, text: str) -> str:
    """Return a file's text with the bug in it.

    The replacement has the indentation of the first line that it replaces, and keeps its own.
    Raises ValueError if the lines are not there once, or if the result is not Python, which any
    test would notice.
    """
    lines = text.splitlines()
    stripped = [line.strip() for line in lines]
    size = len(bug.old)
    places = [at for at in range(len(lines)) if stripped[at : at + size] == bug.old]
    if len(places) != 1:
        raise ValueError(f"found {len(places)} times: {bug}")
    (at,) = places
    margin = lines[at][: len(lines[at]) - len(stripped[at])]
    lines[at : at + size] = [margin + line for line in bug.new]
    wrong = "\n".join([*lines, ""])
    try:
        compile(wrong, bug.file, "exec")
    except SyntaxError as error:
        raise ValueError(f"{error}: {bug}") from None
    return wrong


def is_noticed(bug: Bug, copy: Path) -> bool:
    """Run the bug's tests with the bug in the code; return whether one fails or hangs."""
    path = copy / "dcs_proxy" / bug.file
    right = path.read_text()
    path.write_text(apply(bug, right))
    try:
        return not run_tests(copy, bug.tests)
    finally:
        path.write_text(right)


def run_tests(copy: Path, arguments: Sequence[str]) -> bool:
    """Return whether all of these tests pass in time."""
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--timeout={TEST_LIMIT_S}"]
    programs = copy.with_name(f"{copy.name}-python") / "bin"
    command = [str(programs / "python"), "-m", "pytest", *options, *arguments]
    path = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(copy)}
    try:
        done = subprocess.run(
            command, cwd=copy, capture_output=True, timeout=LIMIT_S, check=False, env=environment
        )
    except subprocess.TimeoutExpired:
        return False
    # Negative: the bug has ended the test run itself, with a signal.
    if done.returncode > 2:
        raise SystemExit(f"{shlex.join(arguments)}\n{done.stdout.decode()}")
    return done.returncode == 0


if __name__ == "__main__":
    sys.exit(main())
