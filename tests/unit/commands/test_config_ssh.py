from __future__ import annotations

from pathlib import Path

import pytest

from dcs_proxy.commands.config_ssh import _program_warnings, _report
from dcs_proxy.local import trusted_file
from dcs_proxy.openssh.config_text import Program


@pytest.mark.parametrize(
    ("place", "is_temporary"),
    [
        ("/home/me/.cache/uv/archive-v0/x1/lib/python3.12/site-packages", True),
        ("/var/tmp/uv/environments-v2/dcs-proxy-1/lib", True),
        ("/home/me/.local/pipx/.cache/0a1b/lib", True),
        ("/home/me/.cache/pipx/0a1b/lib", True),
        ("/home/me/.local/share/uv/tools/dcs-proxy/lib", False),
        ("/home/me/.local/share/pipx/venvs/dcs-proxy/lib", False),
        ("/tmp/checkout", False),
        ("/usr/lib/python3/dist-packages", False),
    ],
)
def test_a_program_that_nothing_has_installed_is_named(place: str, is_temporary: bool) -> None:
    start = f"{place}/dcs_proxy/start.py"
    warnings = list(_program_warnings(Program(("/usr/bin/python3", "-I", "-S", start), "/s")))
    assert bool(warnings) is is_temporary
    assert all(start in line or "pipx or uv tool" in line for line in warnings)


@pytest.mark.parametrize(
    ("mode", "is_refused"), [(0o600, False), (0o644, False), (0o620, True), (0o602, True)]
)
def test_a_file_that_ssh_will_refuse_is_told(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    mode: int,
    is_refused: bool,
) -> None:
    monkeypatch.setattr(trusted_file, "_is_private_group", lambda gid, uid: False)
    path = tmp_path / "config"
    path.touch()
    path.chmod(mode)
    _report(str(path), True, 1)
    shown = capsys.readouterr()
    assert shown.out == f"dcs-proxy: {path}: written, 1 machine listed\n"
    assert (f"hint: chmod go-w {path}" in shown.err) is is_refused
