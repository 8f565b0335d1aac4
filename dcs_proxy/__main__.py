"""Run the program: as ``python -m dcs_proxy``, or by path, as fastpath/helper.py does for ssh."""

import os
import sys

if not __package__:
    # Otherwise our modules would hide others of the same name.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [*(path for path in sys.path if path != here), os.path.dirname(here)]

from dcs_proxy.cli import main

status = main()
# ssh waits until we exit, and shutting the interpreter down takes a tenth of a cold start.  Nothing
# is buffered: the modules of console/ flush what they write.
if not __package__:
    os._exit(status)
sys.exit(status)
