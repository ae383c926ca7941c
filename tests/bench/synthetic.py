"""How fast the synthetic engine is read: the budgets of big models must not outrun it."""

import asyncio
import time

from tests.bench.report import Cell, Options, Table, middle

from servemu_engine.base import GenerateRequest, Message, Sampling
from servemu_engine.synthetic import Replies, SyntheticEngine

TOKENS = 64_000
STREAMS = (1, 32)
TOKENS_PER_CHUNK = (1, 8)
AIM = 200_000


def run(options: Options) -> list[Table]:
    """Tokens/s of one event loop that does nothing else."""
    rows: list[tuple[Cell, ...]] = []
    for per_chunk in TOKENS_PER_CHUNK:
        for streams in STREAMS:
            rates = [asyncio.run(_rate(per_chunk, streams)) for _ in range(options.rounds)]
            rows.append((f"{per_chunk} a chunk", streams, middle(rates), middle(rates) / AIM))
    return [
        Table(
            "Synthetic engine, read through the engine's interface",
            ("tokens", "streams", "tokens/s", f"of {AIM:,}"),
            rows,
            ("The emulator sends one token a chunk; HTTP and JSON come on top.",),
        )
    ]


async def _rate(per_chunk: int, streams: int) -> float:
    engine = SyntheticEngine("bench", replies=Replies(per_chunk, mean_tokens=None))
    request = GenerateRequest(
        messages=(Message("user", "Why do lighthouses flash at night?"),),
        sampling=Sampling(max_tokens=TOKENS // streams),
    )

    async def read() -> int:
        async with engine.submit(engine.prepare(request)) as answer:
            return sum([chunk.num_tokens async for chunk in answer])

    began = time.perf_counter()
    tokens = sum(await asyncio.gather(*(read() for _ in range(streams))))
    return tokens / (time.perf_counter() - began)
