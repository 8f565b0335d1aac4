"""Run the program: as ``python -m dcs_proxy``, or by this file's path, as hot.py does."""

import os
import sys

if not __package__:
    # The directory of our modules is no place for others to be imported from.
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [*(path for path in sys.path if path != here), os.path.dirname(here)]

from dcs_proxy.cli import main

sys.exit(main())
