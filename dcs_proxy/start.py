"""What ssh starts, under ``python -I -S``: it runs a module of fastpath from its cached bytecode.

This file must not move: launchers, and ssh configs that earlier versions have written, name it.
"""

import sys
from _frozen_importlib_external import SourceFileLoader

_FILE = "fastpath/relay.py" if sys.argv[1:2] == ["relay"] else "fastpath/helper.py"
_PATH = __file__.rpartition("/")[0] + "/" + _FILE
_CODE = SourceFileLoader("__main__", _PATH).get_code("__main__")
# Our own file beside this one, and nothing else.
exec(_CODE or "", {"__name__": "__main__", "__file__": _PATH})  # noqa: S102
