"""The checks of ``dcs-proxy doctor``: a function for each, their order, and the bug report's file.

Checks report and suggest; they change nothing.  How the report looks belongs in commands/doctor.py.
"""
