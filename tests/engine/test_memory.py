"""Room for keys and values, from memory figures that are given."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from servemu_engine.devices import choose_devices, max_memory_of
from servemu_engine.errors import LoadFailed
from servemu_engine.memory import MOST_ON_CPU, KvNeeds, free_on_cpu, kv_bytes_for

GIB = 1 << 30


@pytest.mark.parametrize(
    ("free", "layers", "step", "num_models", "expected"),
    [
        ({"cuda:0": 10 * GIB}, {"cuda:0": 24}, GIB, 1, 8 * GIB),
        ({"cuda:0": 10 * GIB}, {"cuda:0": 24}, GIB, 4, 2 * GIB),
        ({"cuda:0": GIB}, {"cuda:0": 24}, 2 * GIB, 1, 0),
        ({"cuda:0": 10 * GIB, "cuda:1": 20 * GIB}, {"cuda:0": 16, "cuda:1": 16}, GIB, 1, 16 * GIB),
        ({"cuda:0": 10 * GIB, "cuda:1": 20 * GIB}, {"cuda:0": 8, "cuda:1": 24}, GIB, 1, None),
        ({"cpu": 100 * GIB}, {"cpu": 30}, 0, 4, MOST_ON_CPU),
        ({"cpu": 2 * GIB}, {"cpu": 30}, 0, 1, int(0.9 * 2 * GIB)),
        ({"cpu": None}, {"cpu": 30}, 0, 4, MOST_ON_CPU),
    ],
    ids=["one GPU", "four models", "no room", "two GPUs", "uneven", "CPU", "small", "unknown"],
)
def test_room_for_keys_and_values(
    free: Mapping[str, int | None],
    layers: Mapping[str, int],
    step: int,
    num_models: int,
    expected: int | None,
) -> None:
    if expected is None:  # 17 GiB for three quarters of the layers are less than 8 for a quarter
        expected = (int(0.9 * 20 * GIB) - GIB) * 32 // 24
    got = kv_bytes_for(KvNeeds(layers, step, num_models), free.__getitem__)
    assert got == pytest.approx(expected, abs=64)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 1000 * 1024),
        ({"memory.max": "max\n", "memory.current": "5"}, 1000 * 1024),
        ({"memory.max": "900000\n", "memory.current": "500000\n"}, 400_000),
        (
            {
                "memory.max": "900000",
                "memory.current": "500000",
                "memory.stat": "anon 7\ninactive_file 100000\nactive_file 3\n",
            },
            500_000,
        ),
        (
            {"memory/memory.limit_in_bytes": "600000", "memory/memory.usage_in_bytes": "700000"},
            0,
        ),
        ({"memory.max": "9000000000", "memory.current": "1"}, 1000 * 1024),
    ],
    ids=["none", "without bound", "bound", "cached files", "version 1", "wider than the machine"],
)
def test_memory_of_a_container_is_within_its_bound(
    tmp_path: Path, files: dict[str, str], expected: int
) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal:  4000 kB\nMemFree:  10 kB\nMemAvailable:   1000 kB\n")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    assert free_on_cpu(meminfo, tmp_path) == expected


def test_system_that_does_not_tell_its_memory_is_not_guessed(tmp_path: Path) -> None:
    assert free_on_cpu(tmp_path / "meminfo", tmp_path) is None


@pytest.mark.parametrize(
    ("device", "num_bytes", "free", "expected"),
    [
        ("auto", 5, [], ("cpu",)),
        ("cpu", 5, [100], ("cpu",)),
        ("auto", 5, [100], ("cuda:0",)),
        ("auto", 500, [100], ("cuda:0",)),
        ("auto", 60, [90, 100], ("cuda:1",)),
        ("cuda", 60, [100, 90], ("cuda:0",)),
        ("auto", 120, [90, 100], ("cuda:0", "cuda:1")),
        ("cuda:1", 120, [90, 100], ("cuda:1",)),
    ],
)
def test_device_of_a_model(
    device: str, num_bytes: int, free: list[int], expected: tuple[str, ...]
) -> None:
    assert choose_devices(device, num_bytes, free) == expected


@pytest.mark.parametrize(
    ("device", "num_bytes", "free", "message"),
    [
        ("cuda", 5, [], "torch sees no GPU"),
        ("cuda:0", 5, [], r"device 'cuda:0': torch sees 0 GPUs"),
        ("cuda:2", 5, [100, 100], r"device 'cuda:2': torch sees 2 GPUs"),
        ("cuda:", 5, [100], r"device 'cuda:': torch sees 1 GPUs"),
        ("auto", 190, [100, 100], "190 bytes have no room on 2 GPUs with 200 bytes"),
    ],
)
def test_device_that_cannot_be_is_named(
    device: str, num_bytes: int, free: list[int], message: str
) -> None:
    with pytest.raises(LoadFailed, match=message):
        choose_devices(device, num_bytes, free)


def test_spread_model_leaves_room_on_each_gpu_and_takes_none_of_the_cpu() -> None:
    assert max_memory_of([1000, 2000]) == {0: 900, 1: 1800}
