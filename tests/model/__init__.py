"""The whole of resolving, held against a simple model of what must always be true."""
