"""Run the program: as ``python -m dcs_proxy``, or by this file's path, as ssh does (hot.py)."""

import contextlib
import os
import sys

if not __package__:
    # The directory of our modules is no place for others to be imported from.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [*(path for path in sys.path if path != here), os.path.dirname(here)]

from dcs_proxy.cli import main

status = main()
# ssh waits for our end, and taking the interpreter apart is a tenth of what is cold.  What a
# command has printed for people is written first; stderr.py writes whole lines at once.
if not __package__:
    with contextlib.suppress(OSError):  # nobody reads it: Python's own way to end says so
        if sys.stdout is not None:
            sys.stdout.flush()
        os._exit(status)
sys.exit(status)
