"""This computer: files, locks, the log, deadlines and the user's settings.

Nothing here uses the network or the terminal, or knows what a session is.
"""
