"""Draw a terminal as SVG: commands typed into ``contrib/demo --shell``, and what they print.

Without arguments, write the pictures that the documentation shows.  ``--into DIR`` writes others as
well, at 80 and at 60 columns, to look at.
"""

from __future__ import annotations

import argparse
import fcntl
import html
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pyte
from rich.console import Console
from rich.terminal_theme import TerminalTheme
from rich.text import Text

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "contrib" / "docs"
DEMO = ROOT / "contrib" / "demo"
PROMPT = "(demo) $ "
LIMIT_S = 600.0  # Setting up the demo's virtual environment takes most of it.
HEIGHT = 200  # More lines than a picture has, so that nothing scrolls away.

# A light page and dark page both have to show it: the terminal brings its own background.
THEME = TerminalTheme(
    (30, 34, 42), (220, 223, 228),
    [(30, 34, 42), (224, 108, 117), (152, 195, 121), (229, 192, 123),
     (97, 175, 239), (198, 120, 221), (86, 182, 194), (220, 223, 228)],
)  # fmt: skip
# rich's own template loads a font from the network.
TEMPLATE = """\
<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}">
<style>
.{unique_id}-matrix {{ font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace;
 font-size: {char_height}px; line-height: {line_height}px; }}
{styles}
</style>
<defs>
<clipPath id="{unique_id}-clip-terminal">
<rect x="0" y="0" width="{terminal_width}" height="{terminal_height}"/>
</clipPath>
{lines}
</defs>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" clip-path="url(#{unique_id}-clip-terminal)">
{backgrounds}
<g class="{unique_id}-matrix">
{matrix}
</g>
</g>
</svg>
"""


@dataclass(frozen=True)
class Step:
    """A line that is typed, and the text that then appears: where the next line is typed."""

    typed: str
    until: str = PROMPT


@dataclass(frozen=True)
class Picture:
    """What is typed before the picture, and what it shows."""

    name: str
    steps: tuple[Step, ...]
    before: tuple[Step, ...] = ()


DEMO_PICTURE = Picture(
    "demo",
    (
        Step("dcs-proxy list"),
        Step("ssh dm-demo", "dm-demo $ "),
        Step('echo "hello from $DCS_MACHINE"', "hello from dm-demo\ndm-demo $ "),
    ),
)
OTHERS = (
    Picture("help", (Step("dcs-proxy --help"),)),
    Picture("list", (Step("dcs-proxy list"),)),
    Picture("wake", (Step("dcs-proxy wake --all", "2 of 4 done"),)),
    Picture("status", (Step("dcs-proxy status"),), (Step("dcs-proxy wake dm-web"),)),
    Picture("doctor", (Step("dcs-proxy doctor dm-web"),)),
)


class Terminal:
    """A pseudo terminal with a program on it.  Use it through open_demo()."""

    def __init__(self, fd: int, columns: int) -> None:
        self._fd = fd
        self._screen = pyte.Screen(columns, HEIGHT)
        self._stream = pyte.ByteStream(self._screen)

    def lines(self) -> list[str]:
        """Return what the terminal shows, without the empty lines at the end."""
        return "\n".join(line.rstrip() for line in self._screen.display).rstrip().split("\n")

    def type(self, step: Step) -> None:
        """Type a line, and wait until the text that comes after it is shown."""
        start = len(self.lines()) - 1
        os.write(self._fd, step.typed.encode() + b"\n")
        self.wait(step.until, start)

    def wait(self, text: str, start: int = 0) -> None:
        """Wait until a text is shown below line `start`.  A prompt has to be at the very end."""
        end = time.monotonic() + LIMIT_S
        while not self._shows(text, start):
            if time.monotonic() > end or not self._read():
                raise RuntimeError(f"{text!r} was not shown:\n" + "\n".join(self.lines()))

    def _shows(self, text: str, start: int) -> bool:
        below = "\n".join(self.lines()[start:])
        if not text.endswith("$ "):
            return text in below
        # The line with the command begins with a prompt, too.
        return "\n" in below and f"{below} ".endswith(text)

    def _read(self) -> bool:
        """Read what there is within a second; False at the end."""
        if select.select([self._fd], [], [], 1)[0]:
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # EIO: no process has the terminal open any more
                return False
            self._stream.feed(data)
            return bool(data)
        return True


@contextmanager
def open_demo(columns: int) -> Iterator[Terminal]:
    """Run ``contrib/demo --shell`` on a terminal; end it when done."""
    fd, inner = pty.openpty()
    fcntl.ioctl(inner, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))

    def take_terminal() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    program = subprocess.Popen(
        [DEMO, "--shell"], stdin=inner, stdout=inner, stderr=inner, preexec_fn=take_terminal,
        env={**os.environ, "TERM": "xterm", "LC_ALL": "C.UTF-8"},
    )  # fmt: skip
    os.close(inner)
    terminal = Terminal(fd, columns)
    try:
        terminal.wait(f"\n{PROMPT}")
        yield terminal
    finally:
        # The shell sees the end of its terminal, and the script then cleans up.
        os.close(fd)
        program.wait(LIMIT_S)


def show(picture: Picture, columns: int) -> list[str]:
    """Return the lines of a picture."""
    with open_demo(columns) as terminal:
        for step in picture.before:
            terminal.type(step)
        start = len(terminal.lines()) - 1
        for step in picture.steps:
            terminal.type(step)
        return terminal.lines()[start:]


def draw(lines: list[str], columns: int) -> str:
    """Return lines of a terminal as SVG."""
    with open(os.devnull, "w") as null:
        console = Console(file=null, record=True, width=columns, force_terminal=True)
        for line in lines:
            typed = re.match(r"(\S+ )?\$ ", line)
            console.print(Text(line, "bold" if typed else ""), soft_wrap=True)
    return console.export_svg(title="", theme=THEME, code_format=TEMPLATE, unique_id="terminal")


def read(svg: str) -> list[str]:
    """Return the lines of a terminal that draw() has drawn."""
    rows: dict[float, list[tuple[float, str]]] = {}
    for attributes, text in re.findall(r"<text ([^>]*)>([^<]*)</text>", svg):
        at = {name: float(value) for name, value in re.findall(r'\b([xy])="([\d.]+)"', attributes)}
        rows.setdefault(at["y"], []).append((at["x"], html.unescape(text)))
    lines = ["".join(text for _, text in sorted(row)) for _, row in sorted(rows.items())]
    return [line.replace("\xa0", " ").rstrip() for line in lines]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, metavar="DIR")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these")
    arguments = parser.parse_args()
    if arguments.into is None:
        (DOCS / "demo.svg").write_text(draw(show(DEMO_PICTURE, 80), 80))
        return
    arguments.into.mkdir(exist_ok=True)
    for picture in (DEMO_PICTURE, *OTHERS):
        if not arguments.names or picture.name in arguments.names:
            for columns in (80, 60):
                svg = draw(show(picture, columns), columns)
                (arguments.into / f"{picture.name}-{columns}.svg").write_text(svg)


if __name__ == "__main__":
    main()
