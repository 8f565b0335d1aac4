"""Jinja conditions, with every ansible-core."""

from __future__ import annotations

from typing import Any

from ansible.module_utils.parsing.convert_bool import boolean


def is_true(condition: Any, templar: Any) -> bool:
    """Return whether a condition over the templar's variables is true.

    Raises whatever Ansible or the condition's functions do.
    """
    if isinstance(condition, bool):
        return condition
    if hasattr(templar, "evaluate_conditional"):
        return bool(templar.evaluate_conditional(condition))
    # ansible-core before 2.19
    text = "{% if " + condition + " %}yes{% else %}no{% endif %}"
    return bool(boolean(templar.template(text)))
