"""How much memory keys and values may take: from what is free once the weights are loaded."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

FreeMemory = Callable[[str], int | None]
"""Bytes free on a device: cpu, cuda:0, …; None: the system does not tell."""

MOST_ON_CPU = 4 << 30
"""Takes memory only where a token was written to, so it may be more than will ever be used."""
_SHARE = 0.9
"""The rest is for fragments, graphs and whoever else is on the device."""
_CGROUPS = Path("/sys/fs/cgroup")
_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class KvNeeds:
    """`layers`: how many keep their keys and values on each device. `step`: bytes of the largest
    step beside them. `num_models`: engines that are to find room, this one included."""

    layers: Mapping[str, int]
    step: int
    num_models: int = 1


def kv_bytes_for(needs: KvNeeds, free_memory: FreeMemory) -> int:
    """Bytes for all layers. Of several devices the one with the least room for its layers counts.

    0 where not even a step has room.
    """
    num_layers = sum(needs.layers.values())
    rooms = []
    for device, layers in needs.layers.items():
        free = free_memory(device)
        if free is not None:
            room = max(0, int(_SHARE * free) - needs.step) // needs.num_models
            rooms.append(room * num_layers // layers)
        if device == "cpu" or free is None:
            rooms.append(MOST_ON_CPU)
    return min(rooms)


def free_memory(device: str) -> int | None:
    """Of this machine; of CUDA what the driver says once torch has given back what it kept."""
    if not device.startswith("cuda"):
        return free_on_cpu()
    import torch

    with torch.cuda.device(device):
        torch.cuda.empty_cache()
        free, _ = torch.cuda.mem_get_info()
    return int(free)


def free_on_cpu(meminfo: Path = _MEMINFO, cgroups: Path = _CGROUPS) -> int | None:
    """What Linux says is available, within the bound of the container if there is one; else None.

    A control group's files as in the kernel's cgroup-v2.rst; version 1 names two of them otherwise.
    """
    rooms = [_available(meminfo)]
    for folder, most, used in (
        (cgroups, "memory.max", "memory.current"),
        (cgroups / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
    ):
        rooms.append(_within(folder, most, used))
    return min((room for room in rooms if room is not None), default=None)


def _available(meminfo: Path) -> int | None:
    kilobytes = _named(meminfo, "MemAvailable:")
    return None if kilobytes is None else 1024 * kilobytes


def _within(folder: Path, most: str, used: str) -> int | None:
    """Pages of files that were not used lately count as free: they are dropped for others."""
    try:
        bound = int((folder / most).read_text())
        taken = int((folder / used).read_text())
    except (OSError, ValueError):  # there is none, or it is "max"
        return None
    return max(0, bound - taken + (_named(folder / "memory.stat", "inactive_file") or 0))


def _named(file: Path, name: str) -> int | None:
    """The number behind a name at the beginning of a line."""
    try:
        lines = [line.split() for line in file.read_text().splitlines()]
        return next((int(line[1]) for line in lines if line[:1] == [name]), None)
    except (OSError, ValueError, IndexError):
        return None
