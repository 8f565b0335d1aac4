"""A local control plane and SSH gateway that behave like the service, on loopback only.

It is for trying out dcs-proxy without an account, and for tests of programs that use the service.
Only the command ``emulator`` imports it.
"""
