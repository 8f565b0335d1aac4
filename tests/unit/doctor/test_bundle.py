from __future__ import annotations

from pathlib import Path

import pytest

from dcs_proxy.app import Options
from dcs_proxy.doctor.bundle import render_bundle
from dcs_proxy.doctor.context import Context
from dcs_proxy.openssh.config_text import NO_MACHINE
from dcs_proxy.openssh.version import Client, Version


@pytest.mark.parametrize("name", ["DEDALUS_BASE_URL", "HTTPS_PROXY", "https_proxy", "ALL_PROXY"])
def test_the_shortest_password_in_a_url_is_masked(tmp_path: Path, name: str) -> None:
    # It is too short to be looked for, and has a slash in it.
    environment = {"HOME": str(tmp_path), name: "http://x/@proxy.example:3128"}
    options = Options(str(tmp_path / "state"))
    context = Context(options, environment, str(tmp_path / "config"), False, None)
    lines = render_bundle(context, []).splitlines()
    assert f"{name}='http://[masked]@proxy.example:3128'" in lines


@pytest.mark.parametrize("host", [None, "dm-foo"])
def test_the_options_are_those_of_the_machine_that_was_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, host: str | None
) -> None:
    options = Options(str(tmp_path / "state"))
    context = Context(options, {"HOME": str(tmp_path)}, str(tmp_path / "config"), False, host)
    context.ssh = Client("/usr/bin/ssh", "OpenSSH_9.2p1", Version(9, 2))
    monkeypatch.setattr(context, "read_options", lambda host: ({"host": [host]}, "warned\n"))
    lines = render_bundle(context, []).splitlines()
    at = lines.index("== ssh -G ==")
    assert lines[at + 1 : at + 3] == ["warned", f"host {host or NO_MACHINE}"]
