"""Checks of the programs: Python with our packages, and OpenSSH."""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version

from dcs_proxy import __version__
from dcs_proxy.checks.check import Check, failed, passed
from dcs_proxy.checks.examination import Examination
from dcs_proxy.errors import clean_text

_PACKAGES = ("requests", "cryptography")
# Match exec and Include behave from here on as the block needs them; it was run with these.
_OLDEST_SSH = (8, 2)
_LIMIT_S = 10


def check_python(exam: Examination) -> Check:
    """Python and the packages that it needs."""
    versions = [f"dcs-proxy {__version__}"]
    for package in _PACKAGES:
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            return failed(
                f"{sys.executable} has no package {package}",
                f"install dcs-proxy again, or: {sys.executable} -m pip install {package}",
            )
    return passed(f"{platform.python_version()} at {sys.executable}, {', '.join(versions)}")


def check_ssh(exam: Examination) -> Check:
    """OpenSSH, in a version that works."""
    program = shutil.which("ssh")
    if program is None or shutil.which("ssh-agent") is None:
        missing = "ssh" if program is None else "ssh-agent"
        return failed(f"there is no {missing} in PATH", "install openssh-client")
    text = ssh_version(program)
    match = re.match(r"OpenSSH_(\d+)\.(\d+)", text)
    if match is None:
        return failed(f"{program} is not OpenSSH: {text}", "install openssh-client")
    if (int(match[1]), int(match[2])) < _OLDEST_SSH:
        return failed(f"{text} at {program} is too old", "install OpenSSH 8.2 or later")
    exam.ssh = program
    return passed(f"{text} at {program}")


def ssh_version(program: str) -> str:
    """Return what ``ssh -V`` says, or why it says nothing."""
    try:
        done = subprocess.run(
            [program, "-V"], capture_output=True, text=True, errors="replace", check=False,
            stdin=subprocess.DEVNULL, timeout=_LIMIT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired) as error:
        return clean_text(str(error))
    return clean_text(done.stderr).partition(",")[0]
