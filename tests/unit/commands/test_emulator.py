from __future__ import annotations

import argparse
import sys

import pytest

from dcs_proxy.app import Options
from dcs_proxy.commands import emulator
from dcs_proxy.errors import ConfigError


def test_without_its_package_the_emulator_says_how_to_add_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in [name for name in sys.modules if name.startswith("dcs_proxy.emulator")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "asyncssh", None)
    with pytest.raises(ConfigError) as caught:
        emulator.run(argparse.Namespace(), Options())
    assert caught.value.message == "the emulator needs the Python package asyncssh"
    # Not the extra of a package of ours in an index: it is in none.
    assert caught.value.hint.startswith("pipx inject dcs-proxy asyncssh, or ")
