from __future__ import annotations

from pathlib import Path

import pytest

from dcs_proxy.app import Options
from dcs_proxy.doctor import ansible
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


def test_a_file_that_others_can_change_is_read_as_ansible_reads_it(home: Path) -> None:
    path = home / ".ansible.cfg"
    path.write_text("[defaults]\nhost_key_checking = no\n")
    path.chmod(0o666)
    assert f"host_key_checking in {path}" in found({}, home)


@pytest.mark.parametrize("value", ["false", "no", "n", "0", "off", "f", "FALSE", "N"])
@pytest.mark.parametrize("in_file", [True, False])
def test_every_word_that_is_false_to_ansible_turns_it_off(
    home: Path, value: str, in_file: bool
) -> None:
    (home / ".ansible.cfg").write_text(f"[defaults]\n Host_Key_Checking =\t{value}\n")
    environment = {} if in_file else {"ANSIBLE_HOST_KEY_CHECKING": value}
    where = f"host_key_checking in {home}/.ansible.cfg" if in_file else "ANSIBLE_HOST_KEY_CHECKING"
    assert found(environment, home).startswith(f"{where} turns host key checking off")


@pytest.mark.parametrize("text", ["host_key_checking = True", "host_key_checking =", "", "\xff"])
def test_other_words_leave_it_on(home: Path, text: str) -> None:
    (home / ".ansible.cfg").write_text(f"[defaults]\n{text}\n", encoding="latin-1")
    assert found({}, home) == ""


def test_the_last_line_counts_and_the_files_are_read_in_order(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / ".ansible.cfg").write_text("host_key_checking = no\nhost_key_checking = yes\n")
    assert found({}, home) == ""
    asked: list[str] = []
    monkeypatch.setattr(ansible, "read_small", lambda path, **_: asked.append(path))
    assert found({}, home) == ""
    assert asked == ["ansible.cfg", f"{home}/.ansible.cfg", "/etc/ansible/ansible.cfg"]
