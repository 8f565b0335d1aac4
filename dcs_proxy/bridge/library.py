"""Load paramiko without what it imports but the bridge never uses."""

from __future__ import annotations

import sys
from typing import Any

_UNUSED = "invoke"


def load_paramiko() -> None:
    """Import paramiko without invoke, which takes half as long to import as everything else.

    paramiko needs it only to run ``Match exec`` lines of ssh configs, and works without it.
    """
    modules: dict[str, Any] = sys.modules
    if _UNUSED in modules:
        return
    # None makes an import fail (Python's language reference, 5.3.1).
    modules[_UNUSED] = None
    try:
        import paramiko  # noqa: F401  # for its effect
    finally:
        del modules[_UNUSED]
