"""The SSH protocol on our side: keys, certificates, agents, and connections to a gateway.

Nothing here knows the API or the state directory's records.
"""
