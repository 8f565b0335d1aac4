"""dcs-proxy: connect OpenSSH to machines of Dedalus Cloud Services.

contrib/docs/architecture.rst is the map: what each package is for, and which may import which.
"""

__version__ = "0.1.0"
