"""A local control plane and SSH gateway that behave like the service, on loopback only.

For trying out dcs-proxy without an account, and for tests of anything that talks to the service.
The program itself imports nothing from here; only the command ``emulator`` starts it.
"""
