"""The parent's end of the viewers' processes: starts them, has them open, drop and report, and reads how late each
board came.

A crowd is one process for each 10,000 viewers; `fanout_viewers` is what runs in it.
"""

import json
import math
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
import trio

from tests.bench import machine
from tests.bench.fanout_lag import Row
from tests.bench.fanout_wire import Shown
from tests.bench.run import ROOT

EACH = 10_000  # viewers a process: two of them have to share the machine with the server
ANSWER = 120.0  # seconds for a command; the slowest peer takes a quarter of it for 8,000 handshakes


class Report(msgspec.Struct, frozen=True):
    """What one process' viewers were shown since `begin`."""

    shown: list[Shown]
    rows: list[Row]
    bytes: int
    gone: int  # closed by the server
    open: int


class Crowd:
    def __init__(self, processes: list[trio.Process]) -> None:
        self._processes = processes
        self._unread = dict.fromkeys(processes, b"")

    async def open(
        self,
        count: int,
        *,
        transport: str = "websocket",
        path: str = "/",
        mode: str | None = None,
        receive_buffer: int = 0,
        trickle: bool = False,
    ) -> float:
        """Returns the seconds until all were served: shown a board, or, of a peer (`mode` None), greeted."""
        share = math.ceil(count / len(self._processes))
        shares = [min(share, count - share * number) for number in range(len(self._processes))]
        order = {
            "do": "open",
            "transport": transport,
            "path": path,
            "mode": mode,
            "at_once": False,
            "receive_buffer": receive_buffer,
            "trickle": trickle,
        }
        return max(
            float(answer["seconds"]) for answer in await self._ask([order | {"count": count} for count in shares])
        )

    async def again(self) -> float:
        """All leave and come back at once; the seconds until all were served again."""
        return max(float(answer["seconds"]) for answer in await self._ask([{"do": "again"}] * len(self._processes)))

    async def begin(self) -> None:
        await self._ask([{"do": "begin"}] * len(self._processes))

    async def end(self) -> list[Report]:
        answers = await self._ask([{"do": "end"}] * len(self._processes))
        return [msgspec.convert(answer, Report) for answer in answers]

    def cpu_seconds(self) -> float:
        return sum(machine.cpu_seconds(process.pid) for process in self._processes)

    # ---- lines -------------------------------------------------------------------------------------------------------

    async def _ask(self, orders: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Each process its order, and their answers. Raises RuntimeError when one has ended, or takes too long."""
        answers: dict[trio.Process, dict[str, Any]] = {}

        async def ask(process: trio.Process, order: dict[str, Any]) -> None:
            assert process.stdin is not None
            try:
                await process.stdin.send_all(json.dumps(order).encode() + b"\n")
            except trio.BrokenResourceError:
                pass  # its last words tell more
            answers[process] = json.loads(await self._line(process))

        with trio.move_on_after(ANSWER) as scope:
            async with trio.open_nursery() as nursery:
                for process, order in zip(self._processes, orders, strict=True):
                    nursery.start_soon(ask, process, order)
        if scope.cancelled_caught:
            raise RuntimeError(f"the viewers did not {orders[0]['do']} within {ANSWER:.0f} s")
        return [answers[process] for process in self._processes]

    async def _line(self, process: trio.Process) -> bytes:
        """The next answer. Anything else that it prints are its last words."""
        assert process.stdout is not None
        data = self._unread[process]
        while b"\n" not in data or not data.startswith(b"{"):
            got = await process.stdout.receive_some()
            if not got:
                raise RuntimeError(data.decode(errors="replace").strip() or "the viewers have ended")
            data += got
        line, _, self._unread[process] = data.partition(b"\n")
        return line


@asynccontextmanager
async def crowd(port: int, count: int = 1) -> AsyncIterator[Crowd]:
    """Processes enough for `count` viewers of a server; ended on the way out."""
    processes: list[trio.Process] = []
    try:
        for _ in range(math.ceil(count / EACH)):
            process = await trio.lowlevel.open_process(
                [sys.executable, "-m", "tests.bench.fanout_viewers", str(port)],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
            processes.append(process)
        yield Crowd(processes)
    finally:
        with trio.CancelScope(shield=True):
            for process in processes:
                process.kill()  # it holds nothing but sockets
                await process.wait()
                for pipe in (process.stdin, process.stdout):
                    assert pipe is not None
                    await pipe.aclose()
