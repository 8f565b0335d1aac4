"""The checks of ``dcs-proxy doctor``: a function for each, and the plan of their order.

Checks report and suggest; they change nothing.  How the report looks belongs in commands/doctor.py.
"""
