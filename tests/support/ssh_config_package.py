"""npm's package ssh-config, with which VS Code's Remote-SSH and its relatives list hosts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

# All since 3.0, as contrib/dev/environment.sh installs them.
VERSIONS = (
    "3.0.0 3.0.1 4.0.2 4.0.4 4.0.5 4.0.6 4.1.1 4.1.2 4.1.3 4.1.4 4.1.5 4.1.6 4.2.0 4.2.1 4.4.0 "
    "4.4.1 4.4.2 4.4.3 4.4.4 5.0.0 5.0.1 5.0.3 5.0.4 5.1.0 5.2.0 5.2.1 5.3.0"
)


def as_editors_read(config: Path, *hosts: str) -> dict[str, dict[str, Any]]:
    """Return what each version of the package reads in a config, by version.

    Skips the test if node or the package is missing.
    """
    modules = os.environ.get("DCS_PROXY_NODE_MODULES")
    node = shutil.which("node")
    newest = f"ssh-config-{VERSIONS.split()[-1]}"
    if not modules or not node or not Path(modules, newest).is_dir():
        pytest.skip(f"node or its package {newest} (in DCS_PROXY_NODE_MODULES) is missing")
    script = str(Path(__file__).with_name("read_config.js"))
    done = subprocess.run(
        [node, script, str(config), VERSIONS, *hosts],
        capture_output=True, text=True, check=True, env={**os.environ, "NODE_PATH": modules},
    )  # fmt: skip
    found: dict[str, dict[str, Any]] = json.loads(done.stdout)
    return found
