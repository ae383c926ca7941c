"""The local engine as one of the racers, each request read by a reader of its own."""

import asyncio
import time
from pathlib import Path
from typing import TYPE_CHECKING

from tests.bench.engine_peers import Measured, Work, num_cores

from servemu_engine.base import GenerateRequest, Message, Sampling

if TYPE_CHECKING:
    from servemu_engine.runners import RunnerChoice


class Ours:
    """One engine, running when it has been made; its name has the precision that it runs in. Raises
    `LoadFailed`."""

    def __init__(self, folder: Path, dtype: str, runner: "RunnerChoice") -> None:
        from servemu_engine.local import LocalEngine, LocalOptions

        options = LocalOptions(dtype=dtype, runner=runner, num_threads=num_cores())
        self._engine = LocalEngine(folder, folder.name, options)
        self._engine.start()
        self.name = f"ours {runner} {self._engine.info.dtype}"

    def close(self) -> None:
        self._engine.close()

    def answer(self, work: Work) -> Measured:
        return asyncio.run(self._answer(work))

    async def _answer(self, work: Work) -> Measured:
        began = time.perf_counter()

        async def read(text: str, most: int) -> list[tuple[float, int]]:
            sampling = Sampling(max_tokens=most, temperature=0.0)
            request = GenerateRequest(messages=(Message("user", text),), sampling=sampling)
            async with self._engine.submit(self._engine.prepare(request)) as generation:
                return [(time.perf_counter() - began, c.num_tokens) async for c in generation]

        answers = await asyncio.gather(*map(read, work.texts, work.new_tokens))
        seconds = time.perf_counter() - began
        firsts = tuple(chunks[0][0] for chunks in answers)
        late = sum(n for chunks in answers for at, n in chunks if at > max(firsts))
        return Measured(sum(n for chunks in answers for _, n in chunks), seconds, firsts, late)
