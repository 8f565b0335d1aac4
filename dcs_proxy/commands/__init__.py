"""One module per command that a person, or ssh, runs.

Each has ``HELP`` (a few words for the list of commands), ``DESCRIPTION`` (a sentence or two),
``EXAMPLES`` (pairs of what one wants and what to type), ``add_arguments(parser)`` and
``run(arguments, options)``.  A value or operand named FILE, DIR or HOST is completed as such.
"""
