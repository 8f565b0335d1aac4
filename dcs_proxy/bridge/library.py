"""Load paramiko without what it imports but the bridge never uses."""

from __future__ import annotations

import sys
from typing import Any

_UNUSED = "invoke"


def load_paramiko() -> None:
    """Import paramiko without invoke, which takes half as long to import as all the rest.

    paramiko needs it only for ``Match exec`` in its reader of ssh configs, and works without it.
    """
    modules: dict[str, Any] = sys.modules
    if _UNUSED in modules:
        return
    modules[_UNUSED] = None  # Python's way to make an import fail (the import system, 5.3.1)
    try:
        import paramiko  # noqa: F401  # for its effect
    finally:
        del modules[_UNUSED]
