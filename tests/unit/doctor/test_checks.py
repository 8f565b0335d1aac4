from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dcs_proxy.app import Options
from dcs_proxy.doctor.context import Context
from dcs_proxy.doctor.editor import check_vscode, connect_timeout
from dcs_proxy.doctor.runner import Check, Step, failed, passed, run_steps
from dcs_proxy.doctor.ssh_config import parse_program
from dcs_proxy.doctor.ssh_options import find_faults
from dcs_proxy.errors import ConfigError
from dcs_proxy.openssh.config_text import Program, render_top
from dcs_proxy.openssh.version import Version


def test_a_failure_stops_only_what_needs_it() -> None:
    def explains_itself(_: object) -> Check:
        raise ConfigError("it is wrong", hint="mend it")

    steps = [
        Step[object]("a", explains_itself),
        Step[object]("b", lambda _: passed("b is well"), ("a",)),
        Step[object]("c", lambda _: passed("c is well")),
        Step[object]("d", lambda _: failed("d is not", "do it"), ("c",)),
        Step[object]("e", lambda _: passed("e is well"), ("c", "b", "d")),
        Step[object]("f", lambda _: None),
        Step[object]("g", lambda _: passed("g is well"), ("f",)),
    ]
    checks = [(c.name, c.status, c.text, c.hint) for c in run_steps(steps, object())]
    assert checks == [
        ("a", "failed", "it is wrong", "mend it"),
        ("b", "skipped", "skipped, for it needs: a", ""),
        ("c", "ok", "c is well", ""),
        ("d", "failed", "d is not", "do it"),
        ("e", "skipped", "skipped, for it needs: b", ""),
        ("g", "ok", "g is well", ""),
    ]


SSH = Version(9, 6)
PATHS = st.lists(
    st.text(alphabet="abc xyz.-_%/é+$#&;()~", min_size=1).map(lambda text: f"/{text}"),
    min_size=1, max_size=3,
)  # fmt: skip


@given(PATHS, PATHS, st.booleans())
def test_what_a_block_starts_is_read_back(words: list[str], more: list[str], named: bool) -> None:
    program = Program((*words, "-I"), more[0], more[-1] if named else None)
    assert parse_program(render_top(program, [], SSH)) == program


@given(st.text())
def test_any_text_is_a_program_or_none(text: str) -> None:
    parse_program(text)
    parse_program(f'Match originalhost x exec "exec {text} prepare %h"')


@pytest.mark.parametrize(
    ("settings", "seconds"),
    [
        ("", None),
        ("{}", None),
        ('{"remote.SSH.connectTimeout": 60}', 60),
        ('{"remote.SSH.connectTimeout" : "90",}', 90),
        ('{\n// "remote.SSH.connectTimeout": 1\n"a": "//", /* "remote.SSH.connectTimeout": 2 */}',
         None),
        ('{"a": "x // y", "remote.SSH.connectTimeout": 7 // why\n}', 7),
        ('{"remote.SSH.connectTimeout": 1, "remote.SSH.connectTimeout": 2}', 2),
        ('{"a": "\\"remote.SSH.connectTimeout\\": 5"}', None),
        ('{"remote.SSH.connectTimeout": 8, "half', 8),
        ('{"remote.SSH.connectTimeoutX": 8}', None),
        ('/* never closed "remote.SSH.connectTimeout": 8', None),
    ],
)  # fmt: skip
def test_vscodes_settings_are_read_with_tolerance(settings: str, seconds: int | None) -> None:
    assert connect_timeout(settings) == seconds


@given(st.text(alphabet='{}",:/*\\ \nremote.SSH.connectTimeout01'))
def test_no_settings_are_too_strange(settings: str) -> None:
    connect_timeout(settings)


def vscode(home: Path, *, extension: str = "", settings: str | None = None) -> Check | None:
    if extension:
        (home / ".vscode" / "extensions" / extension).mkdir(parents=True)
    if settings is not None:
        (home / ".config" / "Code" / "User").mkdir(parents=True)
        (home / ".config" / "Code" / "User" / "settings.json").write_text(settings)
    return check_vscode(Context(Options(str(home / "state")), {}, "", True, None))


def test_who_uses_no_remote_ssh_is_left_in_peace(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert vscode(tmp_path, extension="ms-vscode-remote.remote-ssh-edit-0.87.0") is None
    assert vscode(tmp_path, settings='{"editor.fontSize": 12}') is None


def test_remote_ssh_without_a_setting_waits_too_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    check = vscode(tmp_path, extension="ms-vscode-remote.remote-ssh-0.112.0", settings="{}")
    assert check and not check.ok and "gives up after 15 s" in check.text


def test_a_long_time_out_is_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    check = vscode(tmp_path, settings='{"remote.SSH.connectTimeout": 120}')
    assert check and check.ok and check.text == "VS Code waits 120 s"


GOOD = {
    "user": ["wssh-1"],
    "identityfile": ["/home/me/.ssh/id", "/state/x-cert.pub"],
    "hostkeyalgorithms": ["ssh-ed25519-cert-v01@openssh.com,ssh-ed25519"],
    "pubkeyacceptedalgorithms": ["ssh-ed25519-cert-v01@openssh.com,ssh-ed25519"],
}
WANTED = {"User": "wssh-1", "IdentityFile": "/state/x-cert.pub"}


def test_what_a_session_needs_is_no_fault() -> None:
    assert find_faults(GOOD, WANTED) == []
    older = {**GOOD, "pubkeyacceptedkeytypes": GOOD["pubkeyacceptedalgorithms"]}
    del older["pubkeyacceptedalgorithms"]
    assert find_faults({**older, "proxyjump": ["none"]}, WANTED) == []


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"user": ["root"]}, "User is root"),
        ({"user": []}, "User is not set"),
        ({"identityfile": ["/a", "/b"]}, "IdentityFile is /a, /b"),
        ({"proxyjump": ["hop"]}, "ProxyJump takes the place of our command"),
        ({"hostkeyalgorithms": ["ssh-ed25519"]}, "HostKeyAlgorithms has no certificates"),
        ({"pubkeyacceptedalgorithms": ["ssh-rsa-cert-v01@openssh.com"]},
         "PubkeyAcceptedAlgorithms lacks ssh-ed25519-cert-v01@openssh.com"),
    ],
)  # fmt: skip
def test_each_option_that_differs_is_a_fault(change: dict[str, list[str]], text: str) -> None:
    (fault,) = find_faults({**GOOD, **change}, WANTED)
    assert fault.text.startswith(text)
