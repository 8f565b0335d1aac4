"""The warm path of one ssh: what start.py runs under ``python -I -S``.

Modules here import builtins, ``_socket``, ``posix``, ``time`` and the like, and nothing of ours;
whatever they cannot finish themselves belongs in the full program.
"""
