"""What an engine generates, read to its end."""

from collections.abc import Sequence

from servemu_engine.base import Chunk, Engine, GenerateRequest


async def chunks_of(engine: Engine, request: GenerateRequest) -> list[Chunk]:
    async with engine.submit(engine.prepare(request)) as generation:
        return [chunk async for chunk in generation]


def text_of(chunks: Sequence[Chunk], index: int = 0) -> str:
    """Of one of `n` answers."""
    return "".join(chunk.text for chunk in chunks if chunk.index == index)


async def answer_of(engine: Engine, request: GenerateRequest) -> str:
    return text_of(await chunks_of(engine, request))
