"""One use case a file, each read from top to bottom like the specification's flow chart. Knows no protocol."""
