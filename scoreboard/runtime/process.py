"""Settings of the operating system and the interpreter for a process with thousands of connections.

`app` and `cli` call these functions once. Log event: `descriptor_limit_kept`.
"""

import gc
import resource
import signal

import structlog

# Thresholds of the cyclic garbage collector: new containers until a collection of the youngest generation, and
# collections until the next older one is collected too. With CPython's own (700, 10, 10) 8,000 new viewers cause 13
# pauses, the last of 0.4 s. Reference cycles in a million containers take some hundred megabytes; connections that
# have ended leave none (tests/live/test_reference_cycles.py).
GC_THRESHOLDS = (5_000, 5, 50)

log = structlog.get_logger()


def ending_signals() -> list[signal.Signals]:
    """The signals that ask a process to end: an operator's, Ctrl-C, a closed terminal. Not SIGHUP where it is ignored
    (nohup)."""
    numbers = [signal.SIGTERM, signal.SIGINT, signal.SIGHUP]
    return [number for number in numbers if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN]


def raise_descriptor_limit() -> int:
    """Raises RLIMIT_NOFILE to its hard limit, since each viewer takes a descriptor. Returns the limit in force."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError) as exc:  # a system without a hard limit may refuse "infinity"
            log.warning("descriptor_limit_kept", soft=soft, error=str(exc))
            return soft
    return hard


def tune_gc() -> None:
    """Has the garbage collector ignore all objects that exist now, mostly modules, and run rarely on later ones."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
