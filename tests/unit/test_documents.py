"""README and contrib/docs: valid, linked, and true where a test can tell."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from urllib.parse import urlsplit

import docutils.core
import docutils.nodes
import pytest

import dcs_proxy

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "contrib" / "docs"
README = (ROOT / "README.rst").read_text()
PAGES = [ROOT / "README.rst", ROOT / "CHANGELOG.rst", *sorted(DOCS.glob("*.rst"))]

# What OpenSSH or a shell prints, or a command line.  The program itself says none of these.
NOT_OURS = {
    "/bin/sh: 0: 3: Invalid argument",
    "/bin/sh: 0: cannot open .../launcher: No such file",
    "Bad owner or permissions on ...",
    "Certificate invalid: not yet valid",
    "Connection timed out during banner exchange",
    "Load key ...: error in libcrypto",
    "No ED25519 host key is known for ...",
    "execute_in_shell: waitpid: No child processes",
    "stdio forwarding failed",
    "Could not resolve hostname dm-foo",
    "Permission denied (publickey)",
    "Shell '...' is not executable",
    "invalid quotes",
    "mm_receive_fd: no message header",
    "ssh -A",
    "ssh -J hop dm-foo",
    "terminating, 1 bad configuration options",
}


def parse(page: Path) -> docutils.nodes.document:
    """Return a page as docutils reads it.  Fails on any warning."""
    return docutils.core.publish_doctree(
        page.read_text(), settings_overrides={"halt_level": 2, "report_level": 2}
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_to_files_and_headings_that_exist(page: Path) -> None:
    document = parse(page)
    targets = [node["refuri"] for node in document.findall(docutils.nodes.reference)
               if "refuri" in node]  # fmt: skip
    targets += [node["uri"] for node in document.findall(docutils.nodes.image)]
    for target in targets:
        url = urlsplit(target)
        if url.scheme:
            continue
        path = page.parent / url.path if url.path else page
        assert path.is_file(), target
        if url.fragment:
            assert url.fragment in parse(path).ids, target


def test_the_first_page_is_short() -> None:
    assert len(README.splitlines()) <= 160


def test_every_page_is_in_the_table_of_contents() -> None:
    contents = (DOCS / "README.rst").read_text()
    missing = [page.name for page in DOCS.glob("*.rst") if f"<{page.name}>" not in contents]
    assert missing == ["README.rst"]


def test_the_figures_of_the_first_page_are_those_of_the_benchmark() -> None:
    performance = (DOCS / "performance.rst").read_text()
    figures = re.findall(r"([\d.]+)\s(?:times|MiB)", README.partition("Try it without")[0])
    assert len(figures) >= 4
    assert [figure for figure in figures if f" {figure} " not in performance] == []


def messages() -> Iterator[re.Pattern[str]]:
    """Yield every text in the sources as a pattern in which values stand for anything."""
    for path in Path(dcs_proxy.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                parts = [re.escape(str(p.value)) if isinstance(p, ast.Constant) else ".+"
                         for p in node.values]  # fmt: skip
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [re.escape(node.value)]
            else:
                continue
            # A text that is nearly all values would match anything.
            if len("".join(parts).replace(".+", "")) > 15:
                yield re.compile("".join(parts), re.DOTALL)


def is_in_sources(message: str, patterns: list[re.Pattern[str]]) -> bool:
    """Return whether the program can show a message.

    It may be the beginning of a longer one, or end with a text that several messages have.
    """
    text = message.removeprefix("... ")
    complete = (text, *(f"{text}{mark} ..." for mark in ("", ":", ";", ",")))
    return any(
        pattern.fullmatch(each) or re.fullmatch(f".+ {pattern.pattern}", each)
        for pattern in patterns
        for each in complete
    )


def test_troubleshooting_quotes_what_users_really_see() -> None:
    heads = re.findall(
        r"^(``.+``.*)\n   \S", (DOCS / "troubleshooting.rst").read_text(), re.MULTILINE
    )
    quoted = {message for head in heads for message in re.findall(r"``(.+?)``", head)}
    assert len(quoted) > 40 and quoted >= NOT_OURS
    patterns = list(messages())
    assert [text for text in quoted - NOT_OURS if not is_in_sources(text, patterns)] == []


def test_the_map_of_the_tests_has_every_file_of_tests() -> None:
    text = (DOCS / "testing.rst").read_text()
    table = text.partition("Where the tests are\n")[2].partition("Writing one\n")[0]
    # A name without a directory is in that of the name before it.
    directory, places = "", []
    for name in re.findall(r"``([^`]+)``", table):
        directory = name.rpartition("/")[0] if "/" in name else directory
        places.append(name if "/" in name else f"{directory}/{name}")
    package = ROOT / "dcs_proxy"
    tests = ROOT / "tests"
    gone = [place for place in places if "MODULE" not in place and not list(tests.glob(place))]
    assert gone == ["integration/test_COMMAND.py"]
    places += [f"integration/test_{path.stem}.py" for path in package.glob("commands/*.py")]
    places += [f"unit/test_{path.stem}.py" for path in package.glob("*.py")]
    places += ["unit/*/test_*.py", *(f"{place}*" for place in places if place.endswith("/"))]
    files = sorted(str(path.relative_to(tests)) for path in tests.rglob("test_*.py"))
    missing = [name for name in files if not any(fnmatch(name, place) for place in places)]
    assert missing == []
