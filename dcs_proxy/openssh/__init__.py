"""The OpenSSH client: its version, its config files, and the ssh process that runs us."""
