"""The checks of ``dcs-proxy doctor``: one function per check."""
