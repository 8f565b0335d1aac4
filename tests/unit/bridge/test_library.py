from __future__ import annotations

import subprocess
import sys

SCRIPT = """
import sys
from dcs_proxy.bridge.library import load_paramiko
load_paramiko()
assert "paramiko" in sys.modules and "invoke" not in sys.modules
import dcs_proxy.bridge.run
import invoke
load_paramiko()
assert sys.modules["invoke"] is invoke
"""


def test_paramiko_is_loaded_without_invoke_which_others_can_still_import() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
