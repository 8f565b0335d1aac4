"""dcs-proxy: Dedalus Cloud Services machines behind plain OpenSSH."""

__version__ = "0.1.0"
