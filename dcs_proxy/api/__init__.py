"""The control plane over HTTPS: requests, retries, checked replies, and the API key.

What to do with a session belongs in session/; the gateway is not reached from here.
"""
