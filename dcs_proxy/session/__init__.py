"""From a machine's name to a ready session, and the records of sessions."""
