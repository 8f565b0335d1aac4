"""The checks of ``dcs-proxy doctor``: a function for each, their order, and the bug report's file.

Checks report and suggest; they change nothing.  commands/doctor.py prints the results.
"""
