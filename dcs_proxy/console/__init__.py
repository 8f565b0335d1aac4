"""What people read and type: stdout, stderr, prompts, progress and tables."""
