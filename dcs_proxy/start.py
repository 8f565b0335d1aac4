"""The entry point for ssh, run with ``python -I -S``: execute our modules from cached bytecode.

fastpath/relay.py and, on a warm start, fastpath/helper.py exit the process.  If helper.py returns
instead, the full program runs in the same interpreter: starting another one would take as long as
a warm ssh.

This file must not move: launchers, and ssh configs written by earlier versions, name it.
"""

import _signal  # type: ignore[import-not-found]  # typeshed lacks it; signal imports enum
import sys
from _frozen_importlib_external import SourceFileLoader

# Ctrl-C ends us without a traceback; __main__.py says when the program handles it.
if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
    _signal.signal(_signal.SIGINT, _signal.SIG_DFL)


def _run(file: str) -> None:
    """Run one of our own files; `file` is its path relative to this one."""
    path = __file__.rpartition("/")[0] + "/" + file
    code = SourceFileLoader("__main__", path).get_code("__main__")
    names = {"__name__": "__main__", "__package__": "", "__file__": path}
    exec(code or "", names)  # noqa: S102 - our own file beside this one, and nothing else


try:
    _run("fastpath/relay.py" if sys.argv[1:2] == ["relay"] else "fastpath/helper.py")
except ImportError:
    pass  # the full program needs that module too, and says so

import site  # noqa: E402 - a warm ssh never gets here

site.main()  # add the package directories that -S leaves out
_run("__main__.py")
