"""Which devices the weights of a model go to: one that has room, else all GPUs together."""

from collections.abc import Sequence

from servemu_engine.errors import LoadFailed

_SHARE = 0.7
"""Of a GPU's free memory that weights may take where the model is to be on it alone: the rest is
for keys and values."""
_SHARE_TOGETHER = 0.9


def choose_devices(device: str, num_bytes: int, free: Sequence[int]) -> tuple[str, ...]:
    """Names as torch's, several for a model that one GPU has no room for.

    `device`: auto, cpu, cuda (any), cuda:1, …; `num_bytes`: of the weights; `free`: bytes of each
    GPU. Of several with room the freest: layers on one device do not wait for another. Raises
    `LoadFailed` for a GPU that is not there, and where all of them together have no room.
    """
    if device not in ("auto", "cuda"):
        _check_named(device, len(free))
        return (device,)
    if not free:
        if device == "cuda":
            raise LoadFailed("device 'cuda': torch sees no GPU")
        return ("cpu",)
    freest = max(range(len(free)), key=free.__getitem__)
    if len(free) == 1 or num_bytes <= _SHARE * free[freest]:
        return (f"cuda:{freest}",)
    if num_bytes > _SHARE_TOGETHER * sum(free):
        raise LoadFailed(
            f"weights of {num_bytes} bytes have no room on {len(free)} GPUs with {sum(free)} bytes "
            "free together; with device 'cpu' they may have"
        )
    return tuple(f"cuda:{index}" for index in range(len(free)))


def _check_named(device: str, num_gpus: int) -> None:
    kind, _, index = device.partition(":")
    if kind == "cuda" and not (index.isdigit() and int(index) < num_gpus):
        raise LoadFailed(f"device {device!r}: torch sees {num_gpus} GPUs")


def max_memory_of(free: Sequence[int]) -> dict[int, int]:
    """What accelerate may put on each GPU (`max_memory` of transformers' `from_pretrained`); with
    none on the CPU, since layers that wait there for their turn would make every step wait."""
    return {index: int(_SHARE_TOGETHER * room) for index, room in enumerate(free)}


def free_on_gpus() -> list[int]:
    """Bytes of each, empty without any."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [torch.cuda.mem_get_info(index)[0] for index in range(torch.cuda.device_count())]
