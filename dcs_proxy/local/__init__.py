"""This computer: files, the log, deadlines, and the user's settings.  No network, no terminal."""
