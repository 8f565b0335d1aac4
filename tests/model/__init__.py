"""Resolving, tested against a simple model of what must always be true."""
