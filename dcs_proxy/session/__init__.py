"""From a machine's name to a ready session, and the records of sessions.

The API, agent and clock are passed in (context.py).  The files that ssh reads belong in publish/.
"""
