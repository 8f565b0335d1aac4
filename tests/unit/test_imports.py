"""The direction of imports: read from the source, so that lazy imports count too."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import dcs_proxy

PACKAGE = Path(dcs_proxy.__file__).parent
# Lowest first: a module imports only from its own room and from those before it.
ROOMS = [
    "__init__", "text", "errors", "names", "fastpath", "local", "console", "openssh",
    "api", "ssh", "session", "publish", "bridge", "app", "doctor", "arguments", "emulator",
    "commands", "cli", "__main__",
]  # fmt: skip
# Built into the interpreter or beside it; each other module costs a warm ssh its time.
FASTPATH_MAY_IMPORT = {
    "__future__", "_frozen_importlib_external", "_signal", "_socket", "errno", "fcntl", "posix",
    "select", "sys", "time",
}  # fmt: skip


# Slow to load: imported inside functions, so that only the commands that need them pay for it.
SLOW = {"asyncssh", "cryptography", "keyring", "requests", "shtab", "urllib3"}
# Every way in which the standard library starts a program, and the search that follows relative
# entries of PATH.
_STARTS = re.compile(
    r"\b(?:subprocess\.(?:run|call|check_\w+|getoutput|Popen\()|os\.(?:system|popen|exec|spawn)"
    r"|posix\.exec|posix_spawn|create_subprocess|pty\.spawn|shutil\.which)"
)


def modules() -> dict[str, Path]:
    """Return every module's dotted name below the package, and its file."""
    return {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts): path
        for path in PACKAGE.rglob("*.py")
    }


def imports(path: Path) -> Iterator[str]:
    """Yield the dotted name of everything that a file imports, inside functions too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _names(node)


def _names(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    else:
        assert node.level == 0, "a relative import"
        yield from (f"{node.module}.{alias.name}" for alias in node.names)


def own_imports(name: str, path: Path) -> set[str]:
    """Return those modules of the package that a module imports."""
    known = modules()
    found = set()
    for target in imports(path):
        if not f"{target}.".startswith("dcs_proxy."):
            continue
        inner = target.removeprefix("dcs_proxy").removeprefix(".")
        candidates = (inner, inner.rpartition(".")[0], f"{inner}.__init__")
        found.add(next((c for c in candidates if c in known), "__init__"))
    return found - {name}


def room(name: str) -> str:
    return name.partition(".")[0]


def test_every_room_has_a_place_in_the_order() -> None:
    assert {room(name) for name in modules()} - {"start"} == set(ROOMS)


def test_no_import_points_upward() -> None:
    upward = [
        f"{name} imports {target}"
        for name, path in modules().items()
        for target in own_imports(name, path)
        if name != "start" and ROOMS.index(room(target)) > ROOMS.index(room(name))
    ]
    assert upward == []


def test_no_modules_import_each_other() -> None:
    graph = {name: own_imports(name, path) for name, path in modules().items()}
    while leaves := {name for name, targets in graph.items() if not targets & graph.keys()}:
        for name in leaves:
            del graph[name]
    assert graph == {}, "a circle"


def test_only_the_tunnel_dials_so_that_no_connection_passes_the_proxy_by() -> None:
    dialling = [n for n, path in modules().items() if "dcs_proxy.ssh.dial.dial" in imports(path)]
    assert dialling == ["ssh.tunnel"]


def test_only_one_module_starts_other_programs() -> None:
    """These replace this process by another of ours, or are a machine's guest."""
    exempt = {"fastpath.helper", "ssh.handover", "emulator.guest"}
    starting = {name for name, path in modules().items() if _STARTS.search(path.read_text())}
    assert starting - exempt == {"local.programs"}


def test_the_fast_path_imports_nothing_of_ours_and_next_to_nothing_else() -> None:
    for path in [PACKAGE / "start.py", *(PACKAGE / "fastpath").glob("*.py")]:
        # start.py imports site for the full program, once the fast path has given up.
        assert set(map(_top, imports(path))) - {"site"} <= FASTPATH_MAY_IMPORT, path
    assert "site" not in {n for path in (PACKAGE / "fastpath").glob("*.py") for n in imports(path)}


def test_slow_libraries_are_imported_inside_functions() -> None:
    """The emulator may import them anywhere: its command imports it inside a function."""
    eager = [
        f"{name} imports {target}"
        for name, path in modules().items()
        for node in ast.parse(path.read_text()).body
        if room(name) != "emulator" and isinstance(node, ast.Import | ast.ImportFrom)
        for target in _names(node)
        if _top(target) in SLOW
    ]
    assert eager == []


def _top(name: str) -> str:
    return name.partition(".")[0]
