"""The warm path of one ssh: what start.py runs under ``python -I -S``.

Its modules import builtins, ``_socket``, ``posix`` and ``time``, and nothing of ours.
"""
