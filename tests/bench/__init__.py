"""Benchmarks: this server beside its peers, in turn, in one run, on the same PostgreSQL and Valkey.

`scripts/bench actions` is the door. `__main__` picks the benchmark; `actions` is the story of one run, read it first.
servers: who is compared, how each starts and stops. stores: a fresh database for each, and what it holds afterwards. load: signs and sends.
probe: the same questions to each before it is measured. machine: what else the processors did. report, plot: table, verdicts, picture.
"""
