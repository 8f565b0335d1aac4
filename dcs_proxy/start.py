"""What ssh starts, under ``python -I -S``: a module of fastpath, compiled once, not each time.

It stays here: the blocks in users' ssh configs name this file.
"""

import sys
from _frozen_importlib_external import SourceFileLoader

_FILE = "fastpath/relay.py" if sys.argv[1:2] == ["relay"] else "fastpath/helper.py"
_PATH = __file__.rpartition("/")[0] + "/" + _FILE
_CODE = SourceFileLoader("__main__", _PATH).get_code("__main__")
# Our own file beside this one, and nothing else.
exec(_CODE or "", {"__name__": "__main__", "__file__": _PATH})  # noqa: S102
