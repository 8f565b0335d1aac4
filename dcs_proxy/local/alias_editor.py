"""Edit the aliases in the text of a config file, and leave the rest of it unchanged."""

from __future__ import annotations

from typing import Any

from dcs_proxy.names import MachineName

# Some editors write one; TOML does not allow it.
_BYTE_ORDER_MARK = "\ufeff"


def set_alias(text: str, alias: MachineName, machine: MachineName) -> str:
    """Return the TOML document `text` with `alias` standing for `machine`.

    `text` must be a config file that loads.
    """
    import tomlkit

    document: Any = tomlkit.parse(text.removeprefix(_BYTE_ORDER_MARK))
    if "aliases" not in document:
        document["aliases"] = tomlkit.table()
    document["aliases"][alias] = machine
    return tomlkit.dumps(document)


def remove_alias(text: str, alias: MachineName) -> str:
    """Return the TOML document `text` without `alias`, which it must contain."""
    import tomlkit

    document: Any = tomlkit.parse(text.removeprefix(_BYTE_ORDER_MARK))
    del document["aliases"][alias]
    return tomlkit.dumps(document)
