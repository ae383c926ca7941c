"""Texts to vectors on a local encoder: one worker thread, whatever is waiting in one batch."""

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING

from servemu_engine.apart import apart
from servemu_engine.base import EmbedRequest, EngineInfo, PreparedEmbedRequest
from servemu_engine.errors import EngineClosed, EngineDead, EngineStopped, InvalidPrompt
from servemu_engine.loading import LoadedModel, load_encoder
from servemu_engine.pooling import (
    alike,
    batches,
    pad,
    pool,
    pool_flat,
    projection,
    read_pooling,
    read_window,
)
from servemu_engine.weight_sizes import most_memory_of
from servemu_engine.weight_sources import Progress, no_progress

if TYPE_CHECKING:
    import torch

    from servemu_engine.flat_encoder import FlatEncoder

_BATCH_TOKENS = 4096
"""Most tokens, padding included, of one forward pass."""
_PROJECTIONS = 4
"""Changes of dimension that are kept: of all that may be asked for they were 800 MB."""
_ROUND_TOKENS = 4 * _BATCH_TOKENS
"""Tokens sorted by length together; who comes later waits at most this long."""


@dataclass(slots=True, eq=False)
class _Job:
    """One `embed` call. Only the worker thread touches it, but for `is_abandoned`."""

    request: EmbedRequest
    rows: tuple[tuple[int, ...], ...]
    future: "Future[list[list[float]]]"
    pooled: "list[torch.Tensor | None]"
    num_left: int
    is_abandoned: bool = False


@dataclass(frozen=True, slots=True)
class _Row:
    job: _Job
    index: int

    @property
    def ids(self) -> tuple[int, ...]:
        return self.job.rows[self.index]


@dataclass(frozen=True, slots=True)
class EmbedderOptions:
    """How an embedder uses the machine."""

    dtype: str = "auto"
    """int16: of the linear layers, where they can be compiled; elsewhere float32."""
    device: str = "auto"
    compiled: Path | None = None
    """Folder of compiled libraries; None: beside the model's."""
    progress: Progress = no_progress
    """Told how far `start` is."""


class LocalEmbedder:
    """An `Embedder` on the safetensors of a folder.

    A text is cut to the window of these weights, and billed up to the context of the model played.
    Its vector does not depend on what it is batched with.
    """

    def __init__(self, folder: Path, name: str, options: EmbedderOptions | None = None) -> None:
        self._folder = folder
        self._name = name
        self._options = options or EmbedderOptions()
        self._encoder: _Encoder | None = None
        self._thread: threading.Thread | None = None
        self._inbox: SimpleQueue[_Job | None] = SimpleQueue()
        self._pending: deque[_Row] = deque()
        self._running: set[_Job] = set()
        self._lock = threading.Lock()
        self._closing = False
        self._stopped: Callable[[], EngineStopped] | None = None
        self._load_seconds = 0.0

    @property
    def info(self) -> EngineInfo:
        """Before `start` zeros and the wished dtype, and the bytes an estimate."""
        loaded = self._encoder.loaded if self._encoder else None
        return EngineInfo(
            name=self._name,
            kind="local",
            architecture=type(loaded.model).__name__ if loaded else "",
            dtype=self._encoder.dtype if self._encoder else self._options.dtype,
            device=loaded.device if loaded else self._options.device,
            context_length=self._encoder.window if self._encoder else 0,
            num_parameters=loaded.num_parameters if loaded else 0,
            num_bytes=self._encoder.num_bytes
            if self._encoder
            else most_memory_of(self._folder, self._options.dtype),
            load_seconds=self._load_seconds,
        )

    def start(self) -> None:
        """Load the weights and start the worker. Raises `LoadFailed`."""
        begun = time.perf_counter()
        self._encoder = apart(lambda: _Encoder(self._folder, self._name, self._options))
        self._load_seconds = time.perf_counter() - begun
        self._thread = threading.Thread(target=self._work, name=f"embed {self._name}", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Fail what waits with `EngineClosed` and free the memory. May be called twice."""
        self._closing = True
        self._inbox.put(None)
        if self._thread is not None:
            self._thread.join()
        with self._lock:
            self._stopped = self._stopped or self._closed
        self._encoder = None

    def prepare_embed(self, request: EmbedRequest) -> PreparedEmbedRequest:
        """Tokenise, cut and count `request.texts`. Raises `InvalidPrompt`, `EngineClosed`."""
        if self._encoder is None:
            raise self._closed()
        if not request.texts:
            raise InvalidPrompt("there is no text to embed")
        return self._encoder.tokenise(request)

    async def embed(self, prepared: PreparedEmbedRequest) -> Sequence[Sequence[float]]:
        """Vectors `[text, dimension]`, in order. Raises `EngineDead`, `EngineClosed`."""
        rows = prepared.token_ids
        job = _Job(prepared.request, rows, Future(), [None] * len(rows), len(rows))
        with self._lock:
            if self._stopped is not None:
                raise self._stopped()
            if self._thread is None:
                raise self._closed()
            self._inbox.put(job)
        try:
            return await asyncio.wrap_future(job.future)
        except asyncio.CancelledError:
            job.is_abandoned = True
            raise

    def _closed(self) -> EngineClosed:
        return EngineClosed(f"embedder {self._name!r} is closed")

    def _work(self) -> None:
        try:
            while not self._closing:
                self._take_jobs()
                self._run_round()
            stopped: Callable[[], EngineStopped] = self._closed
        # The border of a dead device: whatever the step raised, everybody waiting must hear of it.
        except Exception as error:
            stopped = _death(self._name, error)
        with self._lock:
            self._stopped = stopped
        while not self._inbox.empty():
            self._accept(self._inbox.get())
        for job in self._running:
            job.future.set_exception(stopped())
        self._running.clear()
        self._pending.clear()

    def _take_jobs(self) -> None:
        """Everything in the inbox; blocks when there is nothing to do."""
        if not self._pending:
            self._accept(self._inbox.get())
        while not self._inbox.empty():
            self._accept(self._inbox.get())

    def _accept(self, job: _Job | None) -> None:
        if job is None or not job.future.set_running_or_notify_cancel():
            return
        self._running.add(job)
        self._pending.extend(_Row(job, index) for index in range(len(job.rows)))

    def _run_round(self) -> None:
        assert self._encoder is not None
        rows = self._next_rows()
        for batch in batches([len(row.ids) for row in rows], _BATCH_TOKENS):
            if self._closing:
                return
            chosen = [rows[position] for position in batch]
            pooled = self._encoder.forward([row.ids for row in chosen])
            for row, vector in zip(chosen, pooled, strict=True):
                self._finish_row(row, vector, self._encoder)

    def _next_rows(self) -> list[_Row]:
        rows: list[_Row] = []
        num_tokens = 0
        while self._pending and num_tokens < _ROUND_TOKENS:
            row = self._pending.popleft()
            if row.job.is_abandoned:
                self._running.discard(row.job)
                continue
            rows.append(row)
            num_tokens += len(row.ids)
        return rows

    def _finish_row(self, row: _Row, vector: "torch.Tensor", encoder: "_Encoder") -> None:
        job = row.job
        job.pooled[row.index] = vector
        job.num_left -= 1
        if job.num_left == 0:
            vectors = encoder.finish([v for v in job.pooled if v is not None], job.request)
            self._running.discard(job)
            job.future.set_result(vectors)


def _pack(loaded: LoadedModel, libraries: Path, options: EmbedderOptions) -> tuple[str, int]:
    """What the weights are then: as of `loaded`, or int16; and their bytes."""
    from servemu_engine.packed import has_integers, held_bytes, pack_linears, packing

    if loaded.device == "cpu":
        pack = packing(libraries, "int16" if options.dtype == "int16" else None)
        pack_linears(loaded.model, pack, options.progress)
    dtype = "int16" if has_integers(loaded.model) else loaded.dtype
    return dtype, held_bytes(loaded.model)


def _flat(loaded: LoadedModel, pad_id: int) -> "FlatEncoder | None":
    from servemu_engine.flat_encoder import FlatEncoder  # imports torch

    try:
        return FlatEncoder(loaded.model, pad_id)
    except NotImplementedError:
        return None


def _death(name: str, error: Exception) -> Callable[[], EngineDead]:
    def dead() -> EngineDead:
        failure = EngineDead(f"embedder {name!r} died: {error or type(error).__name__}")
        failure.__cause__ = error
        return failure

    return dead


class _Encoder:
    """The weights and what is done with them on the device."""

    def __init__(self, folder: Path, name: str, options: EmbedderOptions) -> None:
        self._pooling = read_pooling(folder, name)
        options.progress("import", 0, None)
        self.loaded: LoadedModel = load_encoder(
            folder, dtype=options.dtype, device=options.device, progress=options.progress
        )
        libraries = options.compiled or folder.parent / ".compiled"
        self.dtype, self.num_bytes = _pack(self.loaded, libraries, options)
        self._pad_id = int(self.loaded.tokenizer.pad_token_id or 0)
        self._flat = _flat(self.loaded, self._pad_id)
        self._tokenising = threading.Lock()
        """Cutting changes the tokenizer, which refuses that while another thread uses it."""
        self.window = read_window(folder, self.loaded.context_length)
        self._projection = lru_cache(_PROJECTIONS)(projection)

    def tokenise(self, request: EmbedRequest) -> PreparedEmbedRequest:
        tokenizer = self.loaded.tokenizer
        texts = list(request.texts)
        played = request.context_length or self.window
        window = min(played, self.window)
        try:
            with self._tokenising:
                whole = tokenizer(texts, padding=False, truncation=False, verbose=False).input_ids
                is_cut = any(len(ids) > window for ids in whole)
                cut = tokenizer(texts, truncation=True, max_length=window) if is_cut else None
        except (TypeError, ValueError, OverflowError) as error:
            raise InvalidPrompt(f"the tokenizer refused a text: {error}") from error
        billed = sum(min(len(ids), played) for ids in whole)
        # Without start and end marks an empty text has no tokens, and nothing to pool.
        rows = tuple(tuple(ids) or (self._pad_id,) for ids in (cut.input_ids if cut else whole))
        return PreparedEmbedRequest(request, rows, billed)

    def forward(self, rows: Sequence[Sequence[int]]) -> "torch.Tensor":
        """Pooled float32 `[text, width]`."""
        import torch

        with torch.inference_mode():
            if self._flat is not None:
                return pool_flat(self._flat.hidden(rows), alike(rows), self._pooling).cpu()
            ids, mask = pad(rows, self._pad_id, self.loaded.device)
            hidden = self.loaded.model(input_ids=ids, attention_mask=mask).last_hidden_state
            return pool(hidden, mask, self._pooling).cpu()

    def finish(self, pooled: "list[torch.Tensor]", request: EmbedRequest) -> list[list[float]]:
        """The vectors of one request, in the dimension and length that it asked for."""
        import torch

        vectors = torch.stack(pooled)
        width = vectors.shape[1]
        dimensions = request.dimensions or width
        if dimensions != width:
            vectors = vectors @ self._projection(width, dimensions)
        if request.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=1)
        listed: list[list[float]] = vectors.tolist()
        return listed
