"""The local engine as one of the racers, in a process of its own, as a user has it.

With several in one process their OpenMP teams are more threads than cores, and libgomp lets none
spin.
"""

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, cast

from tests.bench.engine_peers import Measured, Work, num_cores

from servemu_engine.base import GenerateRequest, Message, Sampling
from servemu_engine.errors import LoadFailed

if TYPE_CHECKING:
    from servemu_engine.runners import RunnerChoice

ROOT = Path(__file__).resolve().parents[2]


class Ours:
    """One engine, running when it has been made; its name has the precision that it runs in. Raises
    `LoadFailed`."""

    def __init__(self, folder: Path, dtype: str, runner: "RunnerChoice") -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.bench.ours", folder, dtype, runner],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.name = self._line()
        if not self.name:
            raise LoadFailed(f"{runner} {dtype} did not start")

    def _line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().rstrip("\n")

    def close(self) -> None:
        self._process.communicate()

    def answer(self, work: Work) -> Measured:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(work)) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._line())
        return Measured(**{**answer, "firsts": tuple(answer["firsts"])})


class Answering:
    """The engine in that process, each request read by a reader of its own."""

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


def main() -> None:
    """One line of work in, one line of what was measured out. `ours.py FOLDER DTYPE RUNNER`."""
    folder, dtype, runner = sys.argv[1:]
    engine = Answering(Path(folder), dtype, cast("RunnerChoice", runner))
    sys.stdout.write(f"{engine.name}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        work = {name: tuple(items) for name, items in json.loads(line).items()}
        sys.stdout.write(json.dumps(asdict(engine.answer(Work(**work)))) + "\n")
        sys.stdout.flush()
    engine.close()


if __name__ == "__main__":
    main()
