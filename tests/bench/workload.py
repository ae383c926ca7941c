"""An independent client that works off a list of requests and reads the raw events itself.

It counts what came from the moment on at which the budget was known to be busy until the last
request was whole: in between nothing is unfinished at either end, so rate x time is the truth.
"""

import asyncio
import json
import random
import re
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import cast

EVENT = re.compile(rb"data: (\{.*?\})\n\n")
END = b"\r\n0\r\n\r\n"
WORD = re.compile(r"\w{1,8}|[^\w\s]")
"""What the synthetic engine calls a token, by its documentation."""
TOPIC = "sea "
FRAME = 3
"""Tokens around a prompt of one turn: its two marks, and that of the answer."""


@dataclass(frozen=True, slots=True)
class Ask:
    """A request: so many words in, at most so many tokens out."""

    words: int
    max_tokens: int


@dataclass(slots=True)
class Answer:
    """What came of one; times are `time.perf_counter` seconds."""

    ask: Ask
    asked_at: float
    first_at: float = 0.0
    ended_at: float = 0.0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    """Both as the last `usage` has them."""
    texts: list[str] = field(default_factory=list)
    tokens_at: list[tuple[float, int]] = field(default_factory=list)
    """When `usage` had how many in all."""

    @property
    def tokens(self) -> int:
        return self.prompt_tokens + self.completion_tokens

    @property
    def counted(self) -> int:
        """Tokens of the answer, counted in its text."""
        return len(WORD.findall("".join(self.texts)))

    def tokens_until(self, moment: float) -> int:
        """In all, of those that had come by then."""
        return max((tokens for at, tokens in self.tokens_at if at <= moment), default=0)


@dataclass(slots=True)
class Worked:
    """A whole run."""

    seconds: float
    tokens: int
    """Input and output."""
    answers: list[Answer]
    refused: int

    @property
    def miscounted(self) -> int:
        """Tokens by which `usage` and the texts differ, prompts included."""
        return sum(
            abs(one.counted - one.completion_tokens)
            + abs(one.ask.words + FRAME - one.prompt_tokens)
            for one in self.answers
        )


@dataclass(slots=True)
class Client:
    """What all connections of a run share."""

    port: int
    endpoint: str
    failed: asyncio.Future[None]
    refused: int = 0


class Stream(asyncio.Protocol):
    """One connection that asks what `asks` gives, one after the other."""

    def __init__(self, client: Client, asks: Iterator[Ask]) -> None:
        self._client = client
        self._asks = asks
        self._unread = b""
        self._in_head = True
        self._transport: asyncio.Transport | None = None
        self.answers: list[Answer] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by inheritance
        self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done() and not self._client.failed.done():
            self._client.failed.set_exception(RuntimeError("the server closed a stream"))

    def data_received(self, data: bytes) -> None:
        now = time.perf_counter()
        self._unread += data
        if self._in_head and not self._read_head():
            return
        answer, read_to = self.answers[-1], 0
        for event in EVENT.finditer(self._unread):
            read_to = event.end()
            self._take(answer, json.loads(event[1]), now)
        is_end = self._unread.endswith(END)
        self._unread = self._unread[read_to:]
        if is_end:
            answer.ended_at = now
            self._next()

    def _read_head(self) -> bool:
        head, found, rest = self._unread.partition(b"\r\n\r\n")
        if not found:
            return False
        if head.startswith(b"HTTP/1.1 200"):
            self._in_head, self._unread = False, rest
            return True
        length = re.search(rb"(?i)\r\ncontent-length: (\d+)", head)
        if length is not None and len(rest) < int(length[1]):
            return False
        wait = re.search(rb"(?i)\r\nretry-after: (\d+)", head)
        if head.startswith(b"HTTP/1.1 429") and wait is not None:
            self._client.refused += 1
            ask = self.answers.pop().ask
            asyncio.get_running_loop().call_later(int(wait[1]), self._ask, ask)
        elif not self._client.failed.done():
            self._client.failed.set_exception(RuntimeError((head + rest).decode()))
        return False

    def _take(self, answer: Answer, body: dict[str, object], now: float) -> None:
        usage = cast(dict[str, int], body["usage"])
        choices = cast(list[dict[str, dict[str, str]]], body["choices"])
        answer.first_at = answer.first_at or now
        answer.prompt_tokens = usage["prompt_tokens"]
        answer.completion_tokens = usage["completion_tokens"]
        answer.texts += [choice["delta"].get("content") or "" for choice in choices]
        answer.tokens_at.append((now, answer.tokens))

    def _next(self) -> None:
        ask = next(self._asks, None)
        if ask is None:
            self.done.set_result(None)
        else:
            self._ask(ask)

    def _ask(self, ask: Ask) -> None:
        assert self._transport is not None
        self._unread, self._in_head = b"", True
        self.answers.append(Answer(ask, time.perf_counter()))
        self._transport.write(request_bytes(self._client, ask))

    def close(self) -> None:
        assert self._transport is not None
        self.done.cancel()
        self._transport.abort()


def mixed(total: int, streams: int, *, seed: int = 1) -> list[Ask]:
    """Requests of mixed lengths, in and out, of about `total` tokens; one at least a stream."""
    rng = random.Random(seed)
    mean = min(4000.0, total / streams / 2.5)
    asks: list[Ask] = []
    left = float(total)
    while left > 0 or len(asks) < streams:
        share = rng.uniform(0.1, 0.9)
        size = mean * rng.uniform(0.3, 1.7)
        ask = Ask(max(2, round(size * share)), max(4, round(size * (1 - share))))
        asks.append(ask)
        left -= ask.words + FRAME + ask.max_tokens
    return asks


async def work(port: int, endpoint: str, asks: Sequence[Ask], streams: int, primer: int) -> Worked:
    """Work off the requests on so many streams, while an answer of `primer` tokens ends: the budget
    is busy when they come. Raises `RuntimeError` on a refusal that is no 429."""
    client = Client(port, endpoint, asyncio.get_running_loop().create_future())
    first = await connect(client, iter([Ask(4, primer)]))
    while not first.answers[0].completion_tokens > 0.7 * primer:
        await asyncio.sleep(0.005)
    began = time.perf_counter()
    shared = iter(asks)
    running = [await connect(client, shared) for _ in range(streams)]
    everybody = [first, *running]
    try:
        whole = asyncio.gather(*(stream.done for stream in everybody))
        await asyncio.wait((whole, client.failed), return_when=asyncio.FIRST_COMPLETED)
        if client.failed.done():
            client.failed.result()
    finally:
        for stream in everybody:
            stream.close()
    answers = [answer for stream in everybody for answer in stream.answers]
    ended = max(answer.ended_at for answer in answers)
    tokens = sum(a.tokens for a in answers) - first.answers[0].tokens_until(began)
    return Worked(ended - began, tokens, answers, client.refused)


async def connect(client: Client, asks: Iterator[Ask]) -> Stream:
    """A connection that asks at once."""
    loop = asyncio.get_running_loop()
    _, stream = await loop.create_connection(lambda: Stream(client, asks), "127.0.0.1", client.port)
    return stream


def request_bytes(client: Client, ask: Ask) -> bytes:
    """The request on the wire."""
    body = json.dumps(
        {
            "messages": [{"role": "user", "content": (TOPIC * ask.words).strip()}],
            "max_tokens": ask.max_tokens,
            "temperature": 0,
            "stream": True,
        }
    ).encode()
    head = (
        f"POST /serving-endpoints/{client.endpoint}/invocations HTTP/1.1\r\n"
        f"host: 127.0.0.1:{client.port}\r\nauthorization: Bearer bench\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
