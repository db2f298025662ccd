"""Benchmarks: this server beside its peers, in turn, in one run.

`scripts/bench actions` and `scripts/bench fanout` are the doors; `__main__` picks. Each name is the story of one run,
read it first. Shared: run (progress, folder, stopping), servers (how a server starts and ends), stores (a fresh
database for each, and what it holds afterwards), machine (CPU, memory, what else the processors did), report and plot
(table, verdicts, picture). Of actions: load signs and sends, probe asks each the same questions before it is measured.
Of fanout: fanout_servers, fanout_driver (what moves our board), fanout_viewers and fanout_wire (the raw client),
fanout_crowd (its parent), fanout_lag, fanout_parts, fanout_report.
"""
