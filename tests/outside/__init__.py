"""What we read and write, held against programs and libraries that are not ours."""
