"""The command line: one file for each group of commands. A command builds only the parts that it needs."""
