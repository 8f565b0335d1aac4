"""One module for each command that a user or ssh runs.

Each has ``HELP`` (a few words for the list of commands), ``DESCRIPTION`` (a sentence or two),
``EXAMPLES`` (pairs of a purpose and a command line), ``add_arguments(parser)`` and
``run(arguments, options)``.  Operands and values named FILE, DIR or HOST are completed as such.
What two commands share belongs in a lower package, or in a module here that begins with ``_``.
"""
