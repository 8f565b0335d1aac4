"""Checks of the inventory plugin's options that Ansible does not make itself."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean

_BOOLEANS = ("cache", "strict", "override_remote_user", "leading_separator", "use_extra_vars")
_KEYED_GROUP = {"key", "prefix", "separator", "parent_group", "default_value", "trailing_separator"}
_HOSTNAMES = ("alias", "short", "full")


def check_options(written: Mapping[str, Any], options: Mapping[str, Any]) -> None:
    """Raise ValueError for what Ansible would ignore.

    `written` is what the source says, `options` has the value of each option of the plugin.
    """
    for key in written:
        if key not in options:
            raise ValueError(f"{key} is not an option: {_nearest(key, options)}")
    for key in _BOOLEANS:
        _check_boolean(key, written.get(key, False))
    for group in options["keyed_groups"]:
        _check_keyed_group(group)
    for rule in options["filters"]:
        if len(rule) != 1 or not rule.keys() <= {"include", "exclude"}:
            raise ValueError(
                f"filters: a rule has either include or exclude, not {', '.join(rule)}"
            )
    for name in options["hostnames"]:
        if name not in _HOSTNAMES and "{{" not in name:
            raise ValueError(f"hostnames: {name} is not alias, short, full or a template")


def _nearest(key: str, options: Collection[str]) -> str:
    if near := difflib.get_close_matches(key, options, 1):
        return f"did you mean {near[0]}?"
    return f"the options are {', '.join(sorted(options))}"


def _check_boolean(key: str, value: Any) -> None:
    try:
        boolean(value)
    except TypeError:
        # Ansible takes any other text for false.
        raise ValueError(f"{key}: {value!r} is neither true nor false") from None


def _check_keyed_group(group: Mapping[str, Any]) -> None:
    if unknown := sorted(group.keys() - _KEYED_GROUP):
        raise ValueError(f"keyed_groups: {unknown[0]} is not a key of an entry")
    if not group.get("key"):
        raise ValueError("keyed_groups: an entry has no key")
