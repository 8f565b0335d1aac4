from __future__ import annotations

import configparser
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import pytest

from dcs_proxy.local import packages


def test_the_floors_are_those_of_the_installation() -> None:
    config = configparser.ConfigParser()
    config.read(Path(__file__).parents[3] / "setup.cfg")
    lines = config["options"]["install_requires"].split("\n")
    always = [line.split(" >= ") for line in lines if line and ";" not in line]
    assert dict(always) == packages.FLOORS


@pytest.mark.parametrize("name", ["requests", "urllib3.util", "_ssl", "dcs_proxy.cli"])
def test_a_module_that_cannot_be_imported_is_named(name: str) -> None:
    said = packages.why_unusable(ModuleNotFoundError(name=name))
    assert said == f"{sys.executable} cannot import {name}, which dcs-proxy needs"


@pytest.mark.parametrize(
    ("found", "is_old"),
    [("40.0.2", True), ("9", True), ("41", False), ("41.0.0rc1", False), ("50.1", False),
     ("?", True)],
)  # fmt: skip
def test_a_package_that_is_too_old_is_named(
    monkeypatch: pytest.MonkeyPatch, found: str, is_old: bool
) -> None:
    def version(package: str) -> str:
        if package == "requests":
            raise PackageNotFoundError
        return found if package == "cryptography" else "99"

    monkeypatch.setattr(packages, "version", version)
    said = f"{sys.executable} has cryptography {found}, and dcs-proxy needs 41 or later"
    assert packages.why_unusable(AttributeError()) == (said if is_old else "")


def test_a_bug_is_not_the_fault_of_good_packages() -> None:
    assert packages.why_unusable(AttributeError()) == packages.why_unusable(ImportError()) == ""
    # These errors have a name too, but not of a module.
    assert packages.why_unusable(AttributeError(name="requests")) == ""
    assert packages.why_unusable(NameError(name="requests")) == ""
