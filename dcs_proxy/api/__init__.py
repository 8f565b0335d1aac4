"""The control plane over HTTPS, and the API key that it is asked with.

Parsing and checking responses belongs here; deciding what to do about a session does not (session).
"""
