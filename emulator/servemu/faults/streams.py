"""Faults of a stream, exact to the token: what the client gets is paid and counted, nothing more.

Tokens are counted over all texts of an answer. A chunk of several tokens is split where the fault
is; how much of its text goes before is known where the tokens' texts are, else in proportion.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace

from starlette.requests import ClientDisconnect

from servemu.clock import Clock
from servemu.conversation import Growing
from servemu.faults import network
from servemu.faults.exposure import Exposure
from servemu.faults.ledger import Fired
from servemu.schemas.effects import Corrupt, Cut, DropDone, DropUsage, ErrorEvent, Stall
from servemu.sse import Streamed, Wire, event
from servemu_engine.base import Chunk

BROKEN = b'data: {"id":"chatcmpl_'
"""A corrupt event: it ends within a string."""

StreamFault = Cut | Stall | Corrupt | ErrorEvent | DropUsage | DropDone


def streamed(wire: Wire, answer: Growing, clock: Clock) -> Streamed:
    """The stream, with the fault that it drew. The answer's headers name it from the start; it is
    given back when the stream ends before its token.
    """
    exposure: Exposure | None = wire.scope.get("exposure")
    fired = [] if exposure is None else exposure.draw("stream", entity=_entity(wire))
    if exposure is None or not fired:
        return Streamed(wire, answer)
    return Faulted(wire, answer, clock, Drawn(exposure, fired[0]))


class Drawn:
    """The fault of a stream, and whether it has come to happen."""

    def __init__(self, exposure: Exposure, fired: Fired) -> None:
        effect = fired.rule.effect
        assert isinstance(effect, StreamFault)
        self.effect = effect
        self.has_happened = False
        self._exposure = exposure
        self._fired = fired

    def give_back(self) -> None:
        if not self.has_happened:
            self.has_happened = True
            self._exposure.give_back(self._fired)


class Faulted(Streamed):
    """A stream to which something happens after so many tokens."""

    def __init__(self, wire: Wire, answer: Growing, clock: Clock, drawn: Drawn) -> None:
        super().__init__(wire, answer)
        self._clock = clock
        self._drawn = drawn
        self._tokens = 0
        self._breaks_next = False

    def parts(self, chunk: Chunk) -> Iterable[Chunk]:
        """The chunk, in two where the fault is within it."""
        after = self._drawn.effect.after_tokens
        left = 0 if after is None else after - self._tokens
        return split(chunk, left) if 0 < left < chunk.num_tokens else (chunk,)

    async def take(self, source: int, chunk: Chunk) -> None:
        await self._look()
        await super().take(source, chunk)
        self._tokens += chunk.num_tokens
        await self._look()

    async def end(self) -> None:
        if isinstance(self._drawn.effect, DropDone):
            self._drawn.has_happened = True
            await self._send(b"", more=False)
            return
        if self._breaks_next:
            self._breaks_next = self._drawn.has_happened = False
        self._drawn.give_back()
        await super().end()

    def frame(self, payload: dict[str, object]) -> bytes:
        effect = self._drawn.effect
        if self._breaks_next:
            self._breaks_next = False
            return BROKEN + b"\n\n"
        if isinstance(effect, DropUsage) and self._drawn.has_happened:
            return event(unbilled(payload))
        return event(payload)

    async def _look(self) -> None:
        """Whether its token has come."""
        after = self._drawn.effect.after_tokens
        if self._drawn.has_happened or after is None or self._tokens < after:
            return
        self._drawn.has_happened = True
        await self._happen()

    async def _happen(self) -> None:
        match self._drawn.effect:
            case Cut() as cut:
                await self._send(b"", more=True)
                (network.close if cut.how == "close" else network.reset)(self._wire.scope)
                await self._over()
            case Stall() as stall:
                await self._send(b"", more=True)
                await self._stand_still(stall.seconds)
            case Corrupt():
                self._breaks_next = True
            case ErrorEvent() as error:
                await self._send(event(_error(error)), more=False)
                await self._over()
            case DropDone():
                await self._send(b"", more=False)
                await self._over()

    async def _over(self) -> None:
        """Nothing may follow. Raises `ClientDisconnect`, which ends the generation."""
        await network.gone(self._wire.receive)
        raise ClientDisconnect

    async def _stand_still(self, seconds: float | None) -> None:
        if seconds is None:
            await self._over()
        else:
            await self._clock.sleep_until(self._clock.monotonic() + seconds)


def unbilled(payload: Mapping[str, object]) -> dict[str, object]:
    """An event without its usage, nor that of the response or message within it."""
    return {
        key: unbilled(value) if isinstance(value, dict) and "usage" in value else value
        for key, value in payload.items()
        if key != "usage"
    }


def split(chunk: Chunk, tokens: int) -> tuple[Chunk, Chunk]:
    """The first `tokens` of it, and the rest with its end. Nothing of the text is lost."""
    if len(chunk.logprobs) == chunk.num_tokens:
        length = sum(len(token.text) for token in chunk.logprobs[:tokens])
    else:
        length = len(chunk.text) * tokens // chunk.num_tokens
    first = Chunk(chunk.index, chunk.text[:length], tokens, chunk.logprobs[:tokens])
    rest = replace(
        chunk,
        text=chunk.text[length:],
        num_tokens=chunk.num_tokens - tokens,
        logprobs=chunk.logprobs[tokens:],
    )
    return first, rest


def _error(effect: ErrorEvent) -> dict[str, object]:
    told: dict[str, object] = {"error_code": effect.error_code, "message": effect.message}
    if effect.shape == "error_code":
        return told
    return {"error": {"message": effect.message, "type": effect.error_code, "code": None}}


def _entity(wire: Wire) -> str:
    return wire.headers.get("served-model-name", "")
