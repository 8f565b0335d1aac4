"""Everything that the program can print, in one file: tests/data/messages.txt.

It is there to be read: a reviewer sees every message, hint and help text in one go, and each change
of one in the diff.  After a change, write the file anew::

    python -m tests.unit.test_messages
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE = ROOT / "tests" / "data" / "messages.txt"
# Names and values of protocols and of ssh's options, such as "Bad Request" and "User {user}".
NOT_PROSE = re.compile(r"\s*[A-Z][A-Za-z-]*:? [^ ]*\Z|HTTP/|[A-Z-][A-Za-z0-9-]+: \S+\Z|CONNECT ")
# Two words, of which one is not a placeholder.
PROSE = re.compile(r"[\w}>\"')][,:;)]* +[\w{<\"'(]")
WORD = re.compile(r"(?<![{\w])[A-Za-z]{2,}(?![}\w])")
# Longer texts are scripts and generated files.
MAX_LINES = 4


def name(node: ast.expr) -> str:
    """Return a word for the value of an expression in an f-string."""
    match node:
        case ast.Name(id=found) | ast.Attribute(attr=found):
            return found
        case ast.Subscript(value=value):
            return name(value)
        case ast.Call(func=ast.Attribute(attr=found), args=[]):
            return found
        case ast.Call(args=[first, *_]):
            return name(first)
        case _:
            return "…"


def text_of(node: ast.AST) -> str | None:
    """Return the text of a string or an f-string, with names in braces for values; else None."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.JoinedStr(values=values):
            parts = [
                f"{{{name(value.value)}}}" if isinstance(value, ast.FormattedValue)
                else str(text_of(value))
                for value in values
            ]  # fmt: skip
            return "".join(parts)
    return None


def not_shown(tree: ast.Module) -> set[int]:
    """Return the nodes whose text is not shown, or not by itself: docstrings, parts of f-strings,
    types and regular expressions.
    """
    found: set[int] = set()
    for node in ast.walk(tree):
        parts: list[ast.AST] = []
        match node:
            case ast.Expr(value=ast.Constant() as docstring):
                parts = [docstring]
            case ast.JoinedStr(values=values):
                parts = [value for value in values if isinstance(value, ast.Constant)]
            case ast.FormattedValue(format_spec=ast.expr() as spec):
                parts = list(ast.walk(spec))
            case ast.AnnAssign(annotation=types) | ast.arg(annotation=ast.expr() as types):
                parts = list(ast.walk(types))
            case ast.FunctionDef(returns=ast.expr() as types):
                parts = list(ast.walk(types))
            case ast.Call(func=ast.Attribute(value=ast.Name(id="re"))):
                parts = list(ast.walk(node))
        found.update(map(id, parts))
    return found


def is_prose(text: str) -> bool:
    if text.strip().count("\n") >= MAX_LINES or NOT_PROSE.match(text):
        return False
    return bool(PROSE.search(text) and WORD.search(text))


def messages(source: str) -> Iterator[str]:
    """Yield what a module can print, in order; hints are indented."""
    tree = ast.parse(source)
    skipped = not_shown(tree)
    hints: set[int] = set()
    found: list[tuple[int, int, str]] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.keyword) and node.arg == "hint":
            hints.update(map(id, ast.walk(node.value)))
        text = text_of(node)
        if text is None or id(node) in skipped or not is_prose(text):
            continue
        assert isinstance(node, ast.expr)
        start = "    hint: " if id(node) in hints else ""
        found.append((node.lineno, node.col_offset, start + text.strip("\n")))
    for _, _, line in sorted(found):
        yield line


def render() -> str:
    """Return the text of the file."""
    parts = []
    for path in sorted((ROOT / "dcs_proxy").rglob("*.py")):
        if lines := list(messages(path.read_text())):
            parts.append("".join(f"{line}\n" for line in [f"== {path.relative_to(ROOT)}", *lines]))
    return "\n".join(parts)


def test_the_file_has_every_message_as_it_is_now() -> None:
    assert FILE.read_text() == render(), "write it anew: python -m tests.unit.test_messages"


def test_every_message_is_ascii_because_ssh_prints_other_characters_as_octal_numbers() -> None:
    assert [line for line in render().replace("{…}", "").splitlines() if not line.isascii()] == []


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("raise DcsError('no such machine', hint='type its name')",
         ["no such machine", "    hint: type its name"]),
        ("fail(f'{error.message} of {len(names)} for {quote(host)}')",
         ["{message} of {names} for {host}"]),
        ("say(f'the {\"old name\" if a else b} is gone')", ["the {…} is gone", "old name"]),
        ("HELP = 'do this ' 'and that'", ["do this and that"]),
        ("def f():\n    '''Return a thing.'''\n    return 'no such thing'", ["no such thing"]),
        ("def f(x: 'dict | None') -> 'int | None':\n    y: 'a b' = re.compile('a b')", []),
        ("options = ['User root', f'HostKeyAlias {alias}', f'{a} {b}', 'word']", []),
    ],
)  # fmt: skip
def test_a_message_is_found_wherever_it_is_written(source: str, expected: list[str]) -> None:
    assert list(messages(source)) == expected


if __name__ == "__main__":
    FILE.write_text(render())
