from __future__ import annotations

import pytest

from dcs_proxy.commands.config_ssh import _program_warnings
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
