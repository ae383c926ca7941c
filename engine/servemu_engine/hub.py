"""The Hugging Face hub as a source of weights."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from servemu_engine.model_folder import check_weights
from servemu_engine.weight_sources import (
    LOOK_EVERY,
    Progress,
    WeightsUnavailable,
    is_needed,
    size_of,
)


class Fetch(Protocol):
    """Copies what a model needs of a repository into `target`. Raises `LoadFailed`."""

    def __call__(self, repository: str, target: Path, progress: Progress) -> None: ...


def fetch_from_hub(repository: str, target: Path, progress: Progress) -> None:
    """Implements `Fetch`; a repository of pickles is refused before anything is downloaded."""
    try:
        from huggingface_hub import snapshot_download
    except ImportError as error:
        raise WeightsUnavailable(
            f"model {repository!r} must come from the hub, which needs `servemu[models]`: {error}"
        ) from error
    try:
        with _without_bars():
            there = snapshot_download(repository, dry_run=True)
            check_weights(repository, [file.filename for file in there])
            wanted = [file for file in there if is_needed(file.filename)]
            with _watched(target, sum(file.file_size or 0 for file in wanted), progress):
                snapshot_download(
                    repository,
                    revision=wanted[0].commit_hash,
                    local_dir=target,
                    allow_patterns=[file.filename for file in wanted],
                )
    except (OSError, ValueError) as error:  # all errors of the hub client are one or the other
        first_line = str(error).strip().partition("\n")[0]
        raise WeightsUnavailable(
            f"model {repository!r} is neither in the store, nor a folder, nor a model that servemu "
            f"knows, and the Hugging Face hub does not give it: {first_line}"
        ) from error


@contextmanager
def _without_bars() -> Iterator[None]:
    """The hub client draws its own, over ours; what was set before is put back."""
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    had_bars = not are_progress_bars_disabled()
    disable_progress_bars()
    try:
        yield
    finally:
        if had_bars:
            enable_progress_bars()


@contextmanager
def _watched(folder: Path, total: int, progress: Progress) -> Iterator[None]:
    """The client tells how far it is in no other way that holds for all of its transfers."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(LOOK_EVERY):
            progress("download", min(size_of(folder), total), total)

    progress("download", 0, total)
    watch = threading.Thread(target=look, name="hub-progress", daemon=True)
    watch.start()
    try:
        yield
    finally:
        over.set()
        watch.join()
