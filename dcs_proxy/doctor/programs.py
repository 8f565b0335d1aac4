"""Checks of the programs: Python with our packages, and OpenSSH."""

from __future__ import annotations

import platform
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version

from dcs_proxy import __version__
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.runner import Check, failed, passed
from dcs_proxy.errors import ConfigError
from dcs_proxy.openssh.version import find_client

_PACKAGES = ("requests", "cryptography")


def check_python(exam: Context) -> Check:
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


def check_ssh(exam: Context) -> Check:
    """OpenSSH, in a version that works."""
    try:
        exam.ssh = find_client()
    except ConfigError as error:
        return failed(error.message, error.hint)
    if shutil.which("ssh-agent") is None:
        return failed("there is no ssh-agent in PATH", "install openssh-client")
    return passed(f"{exam.ssh.text} at {exam.ssh.path}")
