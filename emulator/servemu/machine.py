"""What this process takes of its machine: the CPU and memory metrics of every replica."""

import os
from pathlib import Path

from servemu.clock import Clock

STATM = Path("/proc/self/statm")
MIN_SECONDS = 1.0
"""A shorter time says nothing about the load."""


class Machine:
    """All replicas of all endpoints run in this one process, so they have one load."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._since = clock.monotonic()
        self._cpu_seconds = cpu_seconds()
        self._percentage = 0.0

    def cpu_percentage(self) -> float:
        """Of all cores, since it was asked for the last time (scrapes come every 1 to 3 min)."""
        now, spent = self._clock.monotonic(), cpu_seconds()
        elapsed = now - self._since
        if elapsed >= MIN_SECONDS:
            share = (spent - self._cpu_seconds) / elapsed / (os.cpu_count() or 1)
            self._percentage = min(100.0, 100 * share)
            self._since, self._cpu_seconds = now, spent
        return self._percentage

    def memory_percentage(self) -> float | None:
        """Resident memory of the physical one; None where the system does not tell."""
        total = total_memory()
        resident = resident_memory()
        return None if total is None or resident is None else min(100.0, 100 * resident / total)


def cpu_seconds() -> float:
    """User and system time of this process."""
    times = os.times()
    return times.user + times.system


def total_memory() -> int | None:
    """Bytes."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def resident_memory() -> int | None:
    """Bytes."""
    try:
        return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None
