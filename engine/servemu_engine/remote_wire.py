"""The OpenAI wire from the side of a client: what is sent, and what its events mean."""

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any

from servemu_engine.base import (
    Chunk,
    FinishReason,
    GenerateRequest,
    Message,
    PreparedRequest,
    TokenLogprob,
    ToolCallDelta,
    ToolUse,
)
from servemu_engine.errors import InvalidPrompt, RemoteFailed
from servemu_engine.stopping import StopCut

Json = dict[str, Any]

_FINISH_REASONS: Mapping[str, FinishReason] = {"length": "length", "tool_calls": "tool_calls"}
"""All others (stop, eos, content_filter, …) are `stop`."""
REFUSALS = (400, 413, 422)
"""Statuses that speak of the request, not of the server."""
_REFUSED = ("invalid_request_error", "BadRequestError")
_THOUGHTS = ("reasoning_content", "reasoning")
"""What a model thinks before it answers, of vLLM and of Ollama: not shown, but generated."""


def is_chat(request: GenerateRequest) -> bool:
    """A raw prompt goes to `/completions`, everything else through the chat template."""
    return bool(request.messages) or request.use_chat_template


def payload(prepared: PreparedRequest, model: str, first: int = 0) -> Json:
    """The body of `/chat/completions` or `/completions`, for the answers from number `first` on;
    what is not asked is left out.
    """
    request, sampling = prepared.request, prepared.request.sampling
    n = request.n - first
    body: Json = {
        "model": model,
        "stream": True,
        "max_tokens": prepared.max_tokens,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
        "top_k": sampling.top_k,
        "stop": list(sampling.stop) or None,
        "seed": None if sampling.seed is None else sampling.seed + first,
        "n": n if n > 1 else None,
    }
    if is_chat(request):
        messages = request.messages or (Message("user", request.prompt),)
        body["messages"] = [_message(message) for message in messages]
        body["logprobs"] = True if sampling.logprobs else None
        body["top_logprobs"] = sampling.top_logprobs or None
        body |= _tools(request.tool_use)
        body["response_format"] = _response_format(request)
    else:
        body["prompt"] = request.prompt
        body["logprobs"] = sampling.top_logprobs if sampling.logprobs else None
    return {key: value for key, value in body.items() if value is not None}


def _message(message: Message) -> Json:
    shown: Json = {"role": message.role, "content": message.content}
    if message.tool_calls:
        shown["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id:
        shown["tool_call_id"] = message.tool_call_id
    return shown


def _tools(use: ToolUse | None) -> Json:
    if use is None:
        return {}
    functions = [
        {"name": t.name, "description": t.description, "parameters": dict(t.parameters)}
        for t in use.tools
    ]
    named = {"type": "function", "function": {"name": use.name}}
    return {
        "tools": [{"type": "function", "function": function} for function in functions],
        "tool_choice": named if use.name else use.choice,
    }


def _response_format(request: GenerateRequest) -> Json | None:
    if request.json_answer is None:
        return None
    if request.json_answer.schema is None:
        return {"type": "json_object"}
    schema = {"name": "answer", "strict": True, "schema": dict(request.json_answer.schema)}
    return {"type": "json_schema", "json_schema": schema}


async def events(blocks: AsyncIterator[bytes]) -> AsyncIterator[Json]:
    """The `data:` lines of a stream up to `[DONE]`. Raises `RemoteFailed` for what is no event, or
    `InvalidPrompt` for an error that refuses the request.

    Split at newlines only: `str.splitlines` also cuts at U+2028, which JSON may hold.
    """
    rest = b""
    async for block in blocks:
        *lines, rest = (rest + block).split(b"\n")
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                return
            if line.startswith(b"data:") and data:
                yield _object(data)


def _object(data: bytes) -> Json:
    try:
        event = json.loads(data)
    except ValueError as error:
        raise RemoteFailed(f"remote server sent what is no JSON: {data[:80]!r}") from error
    if not isinstance(event, dict) or "choices" not in event:
        told = event.get("error", event) if isinstance(event, dict) else None
        if isinstance(told, dict) and _is_refusal(told):
            raise InvalidPrompt(reason_of(told))
        raise RemoteFailed(f"remote server broke off: {reason_of(event)}")
    return event


def _is_refusal(error: Json) -> bool:
    """As OpenAI spells it, and as vLLM does."""
    return error.get("type") in _REFUSED or error.get("code") in REFUSALS


def reason_of(body: object) -> str:
    """The message of an error body, whichever of the usual shapes it has."""
    if isinstance(body, dict):
        for key in ("error", "message", "detail", "error_code"):
            if body.get(key):
                return reason_of(body[key])
    return (body if isinstance(body, str) else json.dumps(body))[:500]


class Tally:
    """Turns the events of one answer into chunks, and keeps count of the tokens.

    A token count comes with the event's own usage, else with its logprobs, else one an event. What
    the last usage says of the whole is put right on the last chunk, which waits for it.
    """

    def __init__(self, stop: tuple[str, ...] = (), first: int = 0) -> None:
        """The answers of one request, numbered from `first`. What is in `stop` and after is cut
        off, also where the server sends it (`transformers serve` does).
        """
        self._cuts: defaultdict[int, StopCut] = defaultdict(lambda: StopCut(stop))
        self._first = first
        self._calls: defaultdict[int, CallPlaces] = defaultdict(CallPlaces)
        self._begun: set[int] = set()
        self._counted = 0
        self._usage: Json = {}
        self._ended: dict[int, FinishReason] = {}

    @property
    def num_ended(self) -> int:
        """Answers that came to their end."""
        return len(self._ended)

    def take(self, event: Json) -> Iterator[Chunk]:
        """The chunks of one event; those that end an answer come from `end`. Raises KeyError,
        TypeError, ValueError or AttributeError for what is none."""
        has_usage = isinstance(event.get("usage"), dict)
        self._usage = event["usage"] if has_usage else self._usage
        for choice in event["choices"]:
            delta = choice.get("delta") or {}
            index: int = self._first + int(choice.get("index") or 0)
            if self._cuts[index].found:
                continue
            text = self._cuts[index].push(_text(delta.get("content") or choice.get("text") or ""))
            calls = self._calls[index].placed(delta.get("tool_calls") or ())
            logprobs = _logprobs(choice.get("logprobs") or {})
            is_thought = any(delta.get(name) for name in _THOUGHTS)
            num_tokens = len(logprobs) or int(bool(text or calls or is_thought))
            if has_usage:
                num_tokens = self._missing()
            self._counted += num_tokens
            self._begun.add(index)
            if text or calls or logprobs or num_tokens:
                yield Chunk(index, text, num_tokens, logprobs, tool_calls=calls)
            if self._cuts[index].found:
                self._ended[index] = "stop"
            elif choice.get("finish_reason"):
                reason = _FINISH_REASONS.get(choice["finish_reason"], "stop")
                is_call = reason == "stop" and self._calls[index].num_calls > 0
                self._ended[index] = "tool_calls" if is_call else reason

    def end(self) -> Iterator[Chunk]:
        """The last chunk of each answer. `RemoteFailed` if one has no end, or none came."""
        if not self._ended or self._begun != set(self._ended):
            raise RemoteFailed("remote server ended the stream before the answer")
        missing, prompt = self._missing(), _count(self._usage, "prompt_tokens")
        for index, reason in sorted(self._ended.items()):
            cut = self._cuts[index]
            rest = "" if cut.found else cut.held
            yield Chunk(
                index,
                rest,
                missing,
                finish_reason=reason,
                stop_string=cut.found,
                num_prompt_tokens=prompt,
            )
            missing = 0

    def _missing(self) -> int:
        return max(0, (_count(self._usage, "completion_tokens") or 0) - self._counted)


def _text(content: object) -> str:
    """Content may be a list of parts, as the service itself sends for reasoning models."""
    if isinstance(content, list):
        return "".join(part["text"] for part in content if part.get("type") == "text")
    if not isinstance(content, str):
        raise TypeError(f"content is {content!r}")
    return content


def _count(usage: Json, key: str) -> int | None:
    count = usage.get(key)
    return count if isinstance(count, int) else None


class CallPlaces:
    """Numbers the tool calls of one answer by their ids: some servers (Ollama) send whole calls,
    all of them as number 0, and say `stop` at the end."""

    def __init__(self) -> None:
        self._ids: list[str] = []
        self._places: dict[int, int] = {}

    @property
    def num_calls(self) -> int:
        return len(self._ids)

    def placed(self, deltas: Sequence[Json]) -> tuple[ToolCallDelta, ...]:
        return tuple(map(self._placed, deltas))

    def _placed(self, delta: Json) -> ToolCallDelta:
        told, call_id = int(delta.get("index") or 0), str(delta.get("id") or "")
        place = self._places.get(told)
        is_new = place is None or (call_id != "" and call_id != self._ids[place])
        if place is None or is_new:
            place = self._places[told] = len(self._ids)
            self._ids.append(call_id)
        function = delta.get("function") or {}
        return ToolCallDelta(
            place,
            arguments=function.get("arguments") or "",
            id=call_id if is_new else "",
            name=function.get("name") or "" if is_new else "",
        )


def _logprobs(told: Json) -> tuple[TokenLogprob, ...]:
    """Of a chat, or the lists that `/completions` has instead."""
    if "tokens" not in told:
        return tuple(map(_logprob, told.get("content") or ()))
    tops = told.get("top_logprobs") or [None] * len(told["tokens"])
    return tuple(
        _entry(token, logprob, tuple(_entry(*other) for other in (top or {}).items()))
        for token, logprob, top in zip(told["tokens"], told["token_logprobs"], tops, strict=True)
    )


def _entry(token: str, logprob: float | None, top: tuple[TokenLogprob, ...] = ()) -> TokenLogprob:
    return TokenLogprob(token, token.encode(), logprob or 0.0, top)


def _logprob(token: Json) -> TokenLogprob:
    raw = bytes(token["bytes"]) if token.get("bytes") else token["token"].encode()
    top = tuple(map(_logprob, token.get("top_logprobs") or ()))
    return TokenLogprob(token["token"], raw, token["logprob"], top)
