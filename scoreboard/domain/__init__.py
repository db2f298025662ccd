"""What a scoreboard is, without I/O: no await, no clock, no random. Now, ids and keys are arguments."""
