"""Every error that can end a command says what to do next."""

from __future__ import annotations

import ast
from pathlib import Path

from dcs_proxy import errors

PACKAGE = Path(errors.__file__).parent
# A wrong command line shows how it is typed; a command that was interrupted needs no advice, and
# what the emulator says is for developers.
WITHOUT = {"UsageError", "ClientGone", "ReaderGone"}


def kinds(kind: type[Exception]) -> set[str]:
    return {kind.__name__}.union(*(kinds(each) for each in kind.__subclasses__())) - WITHOUT


def test_every_error_has_a_hint() -> None:
    names = kinds(errors.DcsError)
    missing = [
        f"{path.relative_to(PACKAGE)}:{node.lineno}"
        for path in PACKAGE.rglob("*.py")
        if "emulator" not in str(path.relative_to(PACKAGE))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in names
        and not any(keyword.arg == "hint" for keyword in node.keywords)
    ]
    assert missing == []
