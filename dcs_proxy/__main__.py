"""Run the program: as ``dcs-proxy``, as ``python -m dcs_proxy``, or by path, as start.py does.

A Python that cannot run the program is named here, in two lines, with nothing that has to be
imported for it.
"""

import os
import signal
import sys

_NEEDS = (3, 10)  # as in setup.cfg


def run() -> int:
    """Run the program; return its exit code (see errors.py).

    Until the program is imported and handles Ctrl-C, that ends the process without a traceback.
    """
    is_ignored = signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    if not is_ignored:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        from dcs_proxy.cli import main
    except (ImportError, SyntaxError) as error:
        sys.stderr.write("dcs-proxy: {}\ndcs-proxy: hint: {}\n".format(*_explain(error)))
        return 3
    if not is_ignored:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    return main()


def _explain(error: Exception) -> "tuple[str, str]":
    """Return why this Python cannot import the program, and a hint."""
    python = sys.executable or "this Python"
    if sys.version_info < _NEEDS:
        version, needed = (".".join(map(str, each)) for each in (sys.version_info[:2], _NEEDS))
        return (
            f"{python} is Python {version}, and dcs-proxy needs {needed} or later",
            "install dcs-proxy with a newer Python, then run dcs-proxy config-ssh",
        )
    if os.name != "posix":
        return "dcs-proxy does not run on Windows itself", "install it in WSL, and use its ssh"
    missing = getattr(error, "name", None)
    what = f"import {missing}, which dcs-proxy needs" if missing else f"load dcs-proxy: {error}"
    return f"{python} cannot {what}", "install dcs-proxy again, then run dcs-proxy config-ssh"


if __name__ == "__main__":
    if not __package__:
        import gc
        import site

        # Imports create many objects and no garbage.  Looking for it takes a twentieth of a cold
        # start.
        gc.set_threshold(50_000)
        # Isolated mode (-I) ignores PYTHONPATH and the user's site-packages.  If we are installed
        # in there, so are our dependencies.
        here = os.path.dirname(os.path.abspath(__file__))
        if os.path.dirname(here) not in sys.path:
            site.addsitedir(os.path.dirname(here))
    status = run()
    # ssh waits until we exit, and shutting the interpreter down takes a tenth of a cold start.
    # Nothing is buffered: the modules of console/ flush what they write.
    if not __package__:
        os._exit(status)
    sys.exit(status)
