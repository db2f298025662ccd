"""What a process that holds thousands of connections wants of the system and of the interpreter. Called once, by app."""

import gc
import resource
import signal

import structlog

# Containers that were made and not freed again before the youngest are looked through, and how many such looks before
# the next older generation is. CPython's own 700, 10, 10 walk through all of 8,000 viewers again and again while they
# come: 13 pauses, of 0.4 s at last. What circles there are in a million containers takes some hundred megabytes; ended
# connections leave none (tests/live/test_reference_cycles.py).
COLLECT_AFTER = (5_000, 5, 50)

log = structlog.get_logger()


def ending_signals() -> list[signal.Signals]:
    """The signals that ask a process to end: an operator's, Ctrl-C, a closed terminal. Not SIGHUP where it is ignored
    (nohup)."""
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    return [number for number in numbers if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


def raise_descriptor_limit() -> int:
    """Raises RLIMIT_NOFILE to its hard limit, a descriptor a viewer; returns what holds now."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as exc:  # a system without a hard limit may refuse "infinity"
            log.warning("descriptor limit stays", soft=soft, error=str(exc))
            return soft
    return hard


def tune_gc() -> None:
    """Has the cyclic garbage collector leave alone what is there now, modules mostly, and look seldom at what comes."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT_AFTER)
