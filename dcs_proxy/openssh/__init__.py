"""The OpenSSH client: its version, its config files, and the ssh process that runs us.

Files for one session belong in publish/, the SSH protocol in ssh/.
"""
