"""The command line: one file a group of commands. A command builds only the parts that it needs."""
