"""The SSH protocol on our side: keys, certificates, agents, and sockets to a gateway."""
