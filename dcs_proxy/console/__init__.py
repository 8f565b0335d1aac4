"""What users read and type: results, notices, prompts, progress and tables.

This package decides how text is shown; commands/ decides what it says.
"""
