from __future__ import annotations

from pathlib import Path

import pytest

from dcs_proxy.app import Options
from dcs_proxy.doctor.ansible import check_ansible
from dcs_proxy.doctor.context import Context


def found(environment: dict[str, str], home: Path) -> str:
    context = Context(Options(home=str(home / "state")), environment, "", True, None)
    check = check_ansible(context)
    return "" if check is None else check.text


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "project").mkdir()
    monkeypatch.chdir(tmp_path / "project")
    return tmp_path


@pytest.mark.parametrize("value", ["False", "no", "0", "OFF"])
def test_a_variable_that_turns_host_keys_off_is_named(home: Path, value: str) -> None:
    assert found({"ANSIBLE_HOST_KEY_CHECKING": value}, home).startswith("ANSIBLE_HOST_KEY_CHECKING")


def test_a_variable_comes_before_the_files(home: Path) -> None:
    (home / ".ansible.cfg").write_text("[defaults]\nhost_key_checking = no\n")
    assert found({"ANSIBLE_HOST_KEY_CHECKING": "True"}, home) == ""


def test_only_the_first_file_that_ansible_reads_counts(home: Path) -> None:
    assert found({}, home) == ""
    (home / ".ansible.cfg").write_text("[defaults]\nhost_key_checking=false ; why\n")
    assert f"host_key_checking in {home}/.ansible.cfg" in found({}, home)
    (home / "project" / "ansible.cfg").write_text("[defaults]\n# host_key_checking = False\n")
    assert found({}, home) == ""
    (home / "other.cfg").write_text("[defaults]\nhost_key_checking = False\n")
    assert "other.cfg" in found({"ANSIBLE_CONFIG": str(home / "other.cfg")}, home)
