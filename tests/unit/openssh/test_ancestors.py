"""The programs above ssh that give up before a wake may be over."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest

from dcs_proxy.openssh import ancestors
from dcs_proxy.openssh.ancestors import find_advice, is_run_by_ansible

VSCODE = {"VSCODE_SSH_ASKPASS_HANDLE": "/run/handle"}


@pytest.fixture
def above(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The command lines of ssh and of the processes above it."""
    lines: list[list[str]] = []

    def read(pid: int) -> Iterator[list[str]]:
        assert pid == 7
        yield from lines

    monkeypatch.setattr(ancestors, "_ancestors", read)
    return lines


@pytest.mark.parametrize(
    ("timeout_s", "wake_s", "said_s"),
    [(None, 300, 17), (15, 300, 17), (60, 300, 62), (298, 300, None), (297, 300, 299),
     (300, 300, None), (None, 17, None), (None, 18, 17)],
)  # fmt: skip
def test_vs_code_is_named_if_its_time_ends_before_a_wake_may(
    monkeypatch: pytest.MonkeyPatch,
    above: list[list[str]],
    timeout_s: int | None,
    wake_s: int,
    said_s: int | None,
) -> None:
    monkeypatch.setattr(ancestors, "connect_timeout", lambda pid: timeout_s)
    above.append(["gvfsd-sftp"])  # VS Code's own limit is the one that counts
    said = find_advice(7, VSCODE, wake_s)
    if said_s is None:
        assert said == ""
    else:
        assert said.startswith(f"VS Code gives up after {said_s} s: then press Retry")


@pytest.mark.parametrize(
    ("lines", "is_named"),
    [
        ([["ssh", "dm-foo"], ["/usr/libexec/gvfsd-sftp", "--spawner"], ["systemd"]], True),
        ([["ssh", "gvfsd-sftp"], ["bash"]], False),
        ([], False),
    ],
)
def test_the_file_manager_is_named_wherever_it_is_above(
    above: list[list[str]], lines: list[list[str]], is_named: bool
) -> None:
    above += lines
    said = find_advice(7, {"VSCODE_SSH_ASKPASS_HANDLE": ""}, 300)
    assert said.startswith("the file manager gives up") is is_named and bool(said) is is_named


@pytest.mark.parametrize(
    ("words", "is_ansible"),
    [
        (["/usr/bin/python3", "/usr/bin/ansible-playbook", "site.yml"], True),
        (["python3", "-m", "ansible", "all"], True),
        (["ansible"], True),
        (["ansible-galaxy", "x"], True),
        (["vim", "-p", "a", "ansible"], False),
        (["ansible.cfg"], False),
        (["my-ansible"], False),
    ],
)
def test_ansible_is_known_by_the_name_of_its_script(
    above: list[list[str]], words: list[str], is_ansible: bool
) -> None:
    above += [["ssh", "dm-foo"], words]
    assert is_run_by_ansible(7) is is_ansible


@pytest.mark.parametrize("stat", [b"", b"7", b"7 (x) S", b"7 (x) S none"])
def test_a_process_that_cannot_be_read_has_nothing_above_it(
    monkeypatch: pytest.MonkeyPatch, stat: bytes
) -> None:
    # Larger than any process id.
    assert is_run_by_ansible(2**30) is False
    assert find_advice(2**30, {}, 300) == ""
    files = {"/proc/7/cmdline": b"ansible\0", "/proc/7/stat": stat}
    monkeypatch.setattr(
        ancestors, "open", lambda path, mode: io.BytesIO(files[path]), raising=False
    )
    assert is_run_by_ansible(7) is False


def test_all_above_are_asked_up_to_the_first_process(monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: str, mode: str) -> io.BytesIO:
        _, _, pid, name = path.split("/")
        if pid == "0":
            raise FileNotFoundError
        return io.BytesIO(b"p%s\0-x\0" % pid.encode() if name == "cmdline" else
                          b"%d (a) b) S %d 5" % (int(pid), int(pid) - 1))  # fmt: skip

    monkeypatch.setattr(ancestors, "open", read, raising=False)
    assert list(ancestors._ancestors(3)) == [["p3", "-x", ""], ["p2", "-x", ""], ["p1", "-x", ""]]
    assert len(list(ancestors._ancestors(100))) == 12
