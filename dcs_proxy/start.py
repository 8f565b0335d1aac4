"""What ssh starts, under ``python -I -S``: it runs modules of ours from their cached bytecode.

fastpath/relay.py and a warm fastpath/helper.py end the process.  If helper.py does not, the full
program follows in the same interpreter, because starting another would take as long as a warm ssh.

This file must not move: launchers, and ssh configs that earlier versions have written, name it.
"""

import sys
from _frozen_importlib_external import SourceFileLoader


def _run(file: str) -> None:
    """Run one of our own files, by its path from here."""
    path = __file__.rpartition("/")[0] + "/" + file
    code = SourceFileLoader("__main__", path).get_code("__main__")
    names = {"__name__": "__main__", "__package__": "", "__file__": path}
    exec(code or "", names)  # noqa: S102 - our own file beside this one, and nothing else


_run("fastpath/relay.py" if sys.argv[1:2] == ["relay"] else "fastpath/helper.py")

import site  # noqa: E402 - a warm ssh never gets here

site.main()  # the packages that -S has left out
_run("__main__.py")
