"""The rules and values of a scoreboard, without I/O: no await, no clock, no random. Time, ids and keys are
arguments."""
