"""Run the program: as ``python -m dcs_proxy``, or by path, as start.py does for ssh."""

import os
import sys

if not __package__:
    import gc
    import site

    # Imports create many objects and no garbage.  Looking for it takes a twentieth of a cold start.
    gc.set_threshold(50_000)
    # Isolated mode (-I) ignores PYTHONPATH and the user's site-packages.  If we are installed in
    # there, so are our dependencies.
    here = os.path.dirname(os.path.abspath(__file__))
    if os.path.dirname(here) not in sys.path:
        site.addsitedir(os.path.dirname(here))

from dcs_proxy.cli import main

status = main()
# ssh waits until we exit, and shutting the interpreter down takes a tenth of a cold start.  Nothing
# is buffered: the modules of console/ flush what they write.
if not __package__:
    os._exit(status)
sys.exit(status)
