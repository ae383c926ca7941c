"""What the streams of one budget get of it: equal shares, turns for short requests, the pace."""

import asyncio
import itertools
import time

import uvloop
from tests.bench.processes import Running
from tests.bench.workload import Answer, Ask, Client, Stream, connect

WARM_UP = 0.5
LONG_PROMPTS = 6
ENDPOINT = "bench"


def equal_shares(server: Running, streams: int, seconds: float) -> tuple[float, int, int]:
    """Jain's index over equal streams, and the least and the most tokens that one got.

    (sum x)^2 / (n sum x^2): 1 is equal, 1/n is everything for one (Jain, Chiu, Hawe 1984).
    """
    got = uvloop.run(_share(server, streams, seconds))
    index = sum(got) ** 2 / (len(got) * sum(one * one for one in got))
    return index, min(got), max(got)


async def _share(server: Running, streams: int, seconds: float) -> list[int]:
    client = _client(server)
    ask = Ask(20, 100_000)
    running = [await connect(client, itertools.repeat(ask)) for _ in range(streams)]
    try:
        await asyncio.sleep(WARM_UP)
        opened = time.perf_counter()
        await asyncio.sleep(seconds)
        closed = time.perf_counter()
    finally:
        for stream in running:
            stream.close()
    if client.failed.done():
        client.failed.result()
    return [_between(stream, opened, closed) for stream in running]


def _between(stream: Stream, opened: float, closed: float) -> int:
    return sum(a.tokens_until(closed) - a.tokens_until(opened) for a in stream.answers)


def short_behind_long(server: Running, rate: int) -> tuple[float, float]:
    """Seconds to the first token of a short request behind `LONG_PROMPTS` prompts of a second of
    the rate each; and when it would have come first in, first out."""
    return uvloop.run(_overtake(server, rate))


async def _overtake(server: Running, rate: int) -> tuple[float, float]:
    client = _client(server)
    long = [await connect(client, iter([Ask(rate, 16)])) for _ in range(LONG_PROMPTS)]
    began = time.perf_counter()
    await asyncio.sleep(0.2)
    short = await connect(client, iter([Ask(16, 16)]))
    try:
        await asyncio.wait((short.done, client.failed), return_when=asyncio.FIRST_COMPLETED)
        if client.failed.done():
            client.failed.result()
    finally:
        for stream in (*long, short):
            stream.close()
    answer = short.answers[0]
    in_order = LONG_PROMPTS - (answer.asked_at - began)
    return answer.first_at - answer.asked_at, in_order


def paced(server: Running, prompts: tuple[int, ...], rounds: int, max_tokens: int) -> list[Answer]:
    """Answers one after the other, on an endpoint that has nothing else to do."""
    return uvloop.run(_one_by_one(server, prompts * rounds, max_tokens))


async def _one_by_one(server: Running, prompts: tuple[int, ...], max_tokens: int) -> list[Answer]:
    client = _client(server)
    stream = await connect(client, iter([Ask(words, max_tokens) for words in prompts]))
    try:
        await asyncio.wait((stream.done, client.failed), return_when=asyncio.FIRST_COMPLETED)
        if client.failed.done():
            client.failed.result()
    finally:
        stream.close()
    return stream.answers


def _client(server: Running) -> Client:
    return Client(server.port, ENDPOINT, asyncio.get_running_loop().create_future())
