"""The bridge: one process that is an SSH server to the client and an SSH client to the gateway.

It serves all clients that cannot use a session's certificate themselves.  Only this package imports
paramiko.
"""
