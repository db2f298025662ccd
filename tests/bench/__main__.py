"""`python -m tests.bench BENCHMARK …`: hands the rest of the line to the benchmark named first."""

import os
import sys
from collections.abc import Callable, Sequence

from tests.bench import actions, bulk, fanout, frontline, scale

BENCHMARKS: dict[str, Callable[[Sequence[str]], int]] = {
    "actions": actions.main,
    "bulk": bulk.main,
    "fanout": fanout.main,
    "front-line": frontline.main,
    "scale": scale.main,
}


def main(argv: Sequence[str]) -> int:
    os.environ |= {"NO_PROXY": "*", "no_proxy": "*"}  # all servers are this machine's
    if argv and (benchmark := BENCHMARKS.get(argv[0])):
        return benchmark(argv[1:])
    print(f"usage: scripts/bench {{{','.join(BENCHMARKS)}}} [--help]", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
