"""One module per shell: ``render(syntax)`` returns its completion script.

The scripts read the machines' names from the state directory themselves and start no program.
Only words that no shell expands are offered as names, whatever that file holds.
"""
