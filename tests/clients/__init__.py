"""Every client that people use with machines, run for real; together they make a table."""
