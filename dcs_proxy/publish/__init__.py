"""The files that ssh reads for a ready session: included config, fast entries, known hosts."""
