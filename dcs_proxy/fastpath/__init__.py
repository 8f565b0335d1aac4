"""The warm path of one ssh: what start.py runs with ``python -I -S``.

Modules here import builtins, ``_socket``, ``posix``, ``time`` and the like, and none of our other
modules.  They leave everything unusual to the full program.
"""
