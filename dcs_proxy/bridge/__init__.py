"""The bridge: one process that is an SSH server to the client and an SSH client to the gateway.

It serves every client that cannot use a session's certificate itself.  Only this package imports
paramiko.
"""
