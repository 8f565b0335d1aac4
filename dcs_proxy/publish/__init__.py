"""The files that ssh reads for a ready session: includes, known_hosts, and the warm entry.

Nothing here asks the API or decides whether a session may be used.
"""
