"""Run the program: as ``python -m dcs_proxy``, or by this file's path, as ssh does (hot.py)."""

import os
import sys

if not __package__:
    # The directory of our modules is no place for others to be imported from.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [*(path for path in sys.path if path != here), os.path.dirname(here)]

from dcs_proxy.cli import main

status = main()
if not __package__:
    # ssh waits for our end, and taking the interpreter apart is a tenth of what is cold.  Nothing
    # is lost: for ssh we write to descriptors, and to stderr whole lines at once.
    os._exit(status)
sys.exit(status)
