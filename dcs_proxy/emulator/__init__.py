"""A local control plane and SSH gateway that behave as the service does.

For trying dcs-proxy without an account, and for tests: of dcs-proxy and of anything else that
speaks to the service.  Loopback only.
"""
