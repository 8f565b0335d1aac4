"""What users read and type: results, notices, prompts, progress and tables.

How text is shown belongs here; what a command says belongs in commands/.
"""
