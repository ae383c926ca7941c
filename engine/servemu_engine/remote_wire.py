"""The OpenAI wire from the side of a client: what is sent, and what its events mean."""

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator, Mapping
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
        told = event.get("error") if isinstance(event, dict) else None
        if isinstance(told, dict) and told.get("type") == "invalid_request_error":
            raise InvalidPrompt(reason_of(told))
        raise RemoteFailed(f"remote server broke off: {reason_of(event)}")
    return event


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
        self._begun: set[int] = set()
        self._counted = 0
        self._usage: Json = {}
        self._ended: dict[int, FinishReason] = {}

    @property
    def num_ended(self) -> int:
        """Answers that came to their end."""
        return len(self._ended)

    def take(self, event: Json) -> Iterator[Chunk]:
        """The chunks of one event; those that end an answer come from `end`."""
        self._usage = event.get("usage") or self._usage
        has_usage = bool(event.get("usage"))
        for choice in event["choices"]:
            delta = choice.get("delta") or {}
            index: int = self._first + choice.get("index", 0)
            if self._cuts[index].found:
                continue
            text = self._cuts[index].push(delta.get("content") or choice.get("text") or "")
            calls = tuple(map(_call_delta, delta.get("tool_calls") or ()))
            logprobs = tuple(map(_logprob, (choice.get("logprobs") or {}).get("content") or ()))
            num_tokens = len(logprobs) or int(bool(text or calls))
            if has_usage:
                num_tokens = self._missing()
            self._counted += num_tokens
            self._begun.add(index)
            if text or calls or logprobs or num_tokens:
                yield Chunk(index, text, num_tokens, logprobs, tool_calls=calls)
            if self._cuts[index].found:
                self._ended[index] = "stop"
            elif choice.get("finish_reason"):
                self._ended[index] = _FINISH_REASONS.get(choice["finish_reason"], "stop")

    def end(self) -> Iterator[Chunk]:
        """The last chunk of each answer. `RemoteFailed` if one has no end, or none came."""
        if not self._ended or self._begun != set(self._ended):
            raise RemoteFailed("remote server ended the stream before the answer")
        missing, prompt = self._missing(), self._usage.get("prompt_tokens")
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
        return max(0, int(self._usage.get("completion_tokens") or 0) - self._counted)


def _call_delta(delta: Json) -> ToolCallDelta:
    function = delta.get("function") or {}
    return ToolCallDelta(
        delta.get("index", 0),
        arguments=function.get("arguments") or "",
        id=delta.get("id") or "",
        name=function.get("name") or "",
    )


def _logprob(token: Json) -> TokenLogprob:
    raw = bytes(token["bytes"]) if token.get("bytes") else token["token"].encode()
    top = tuple(map(_logprob, token.get("top_logprobs") or ()))
    return TokenLogprob(token["token"], raw, token["logprob"], top)
