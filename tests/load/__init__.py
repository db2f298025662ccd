"""`scripts/load`: users that act and users that watch, on a running server, and a report.

`run` reads the arguments, checks the server, gets tokens and starts Locust as a process of its own (it patches the
standard library, so nothing else may import it); `locustfile` is what that process runs; `figures` is pure and used by
both. The page, the CSV files and `summary.json` are in the output folder at the end.
"""
