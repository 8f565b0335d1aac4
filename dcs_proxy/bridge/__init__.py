"""The bridge: an SSH server towards the client, an SSH client towards the gateway, one process.

For every client that cannot use a session's certificate itself.  paramiko is imported here only.
"""
