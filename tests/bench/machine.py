"""How busy everybody else kept the machine while a server was measured: figures from a busy machine are not worth
comparing.

Reads /proc twice: what all processors did, less what this benchmark's own processes did (the sender, the stores and the
server among them).
"""

import os
import time
from pathlib import Path

import msgspec

TICKS = os.sysconf("SC_CLK_TCK")  # CPU time in /proc is counted in these, a second


class Usage(msgspec.Struct, frozen=True):
    """CPU seconds since the machine started: of all its processes, and of this benchmark's."""

    at: float
    everything: float
    own: float

    def others_since(self, before: "Usage") -> float:
        """Cores that processes outside the benchmark kept busy in between."""
        return max(0.0, (self.everything - before.everything) - (self.own - before.own)) / (self.at - before.at)


def stat_fields(pid: int) -> list[str]:
    """The fields of /proc/<pid>/stat behind the command's name: state first, then the parent's id."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def cpu_seconds(pid: int) -> float:
    """User and system time of one process with all its threads, since it began."""
    fields = stat_fields(pid)
    return (int(fields[11]) + int(fields[12])) / TICKS


def tree_cpu_seconds(pid: int) -> float:
    """User and system time of a process and of whatever it has started, ended children included."""
    parent = stat_fields(pid)
    ticks = sum(int(field) for field in parent[11:15])
    for child in tree(pid)[1:]:
        try:
            ticks += sum(int(field) for field in stat_fields(child)[11:15])
        except OSError:
            pass  # it has ended meanwhile; its parent counts it from now on
    return ticks / TICKS


def tree(pid: int) -> list[int]:
    """A process and whatever it has started, now."""
    parents = {child: int(fields[1]) for child, fields in _processes().items()}
    found = [pid]
    for one in found:
        found += [child for child, parent in parents.items() if parent == one]
    return found


def pss_kib(pid: int) -> int:
    """Memory of a process, pages that it shares with others counted in part. The kernel's socket buffers are not in
    it."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    raise OSError(f"the kernel does not tell the memory of process {pid}")


def _processes() -> dict[int, list[str]]:
    processes = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                processes[int(folder.name)] = stat_fields(int(folder.name))
            except OSError:
                pass  # it has ended meanwhile
    return processes


def usage() -> Usage:
    busy = [int(ticks) for ticks in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    everything = sum(busy) - busy[3] - busy[4] - busy[7]  # without idle, iowait and what a hypervisor took
    processes = _processes()
    own, wave = 0, {os.getpid()}
    while wave:
        # itself, and the children that it has seen end
        own += sum(int(ticks) for pid in wave for ticks in processes[pid][11:15])
        wave = {pid for pid, fields in processes.items() if int(fields[1]) in wave}
    return Usage(time.monotonic(), everything / TICKS, own / TICKS)
