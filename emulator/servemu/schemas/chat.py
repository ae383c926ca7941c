"""`llm/v1/chat`: the request (facts/data_plane §2.1), and its answer (§3.1 to §3.3).

Texts of refusals are a GUESS where LIVE is not said.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue

from servemu.conversation import Head
from servemu.schemas.answers import Asked, Choice, Shape, shown_logprob
from servemu.schemas.decoding import Body, Items, refuse
from servemu.schemas.reasoning import (
    PLAIN,
    Dialect,
    Thinking,
    check_effort,
    check_json_object,
    check_stop,
    check_strict,
    check_temperature,
    check_thinking,
    in_lists,
)
from servemu.schemas.sampling import GenerationFields
from servemu.schemas.tools import (
    AssistantToolCall,
    ResponseFormat,
    ToolChoice,
    ToolDefinition,
    tool_use,
)
from servemu_engine.base import (
    GenerateRequest,
    JsonAnswer,
    Message,
    Role,
    Sampling,
    TokenLogprob,
    ToolCall,
    ToolCallDelta,
)

ROLES: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "assistant": "assistant",
    "tool": "tool",
}


class ContentPart(Body):
    """An item of a content list. Text only: the models played here see nothing else."""

    type: str
    text: str = ""
    image_url: JsonValue = None
    document: JsonValue = None
    file: JsonValue = None
    summary: JsonValue = None


def _parts(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class ChatMessage(Body):
    """One message as it is sent."""

    role: str
    content: Annotated[Items[ContentPart], BeforeValidator(_parts)] = Field(default_factory=list)
    name: str = ""
    """Ignored. litellm leaves it out for users: the service may refuse it there (GUESS)."""
    tool_call_id: str = ""
    tool_calls: Items[AssistantToolCall] = Field(default_factory=list)


class ChatRequest(GenerationFields):
    """Body of a chat call."""

    messages: Items[ChatMessage]
    logprobs: bool = False
    top_logprobs: int | None = Field(None, ge=0, le=20)
    tools: Items[ToolDefinition] = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
    response_format: ResponseFormat | None = None
    reasoning_effort: str | None = None
    thinking: Thinking | None = None
    service_tier: Literal["default", "priority"] | None = None
    """Taken (DOC): what it changes, a queue of the pay-per-token service, is not played."""

    def shape(self, dialect: Dialect) -> Shape:
        """How the answer looks."""
        thinks = self.thinking is not None and self.thinking.type == "enabled"
        return in_lists(CHAT) if dialect.answers_lists or thinks else CHAT

    def generate_request(self, context_length: int, dialect: Dialect = PLAIN) -> GenerateRequest:
        """What the engine is asked. Raises `BadRequest`, `JsonObjectRefused`."""
        check_effort(dialect, self.reasoning_effort)
        check_thinking(dialect, self.thinking)
        check_stop(dialect, self.stop)
        check_temperature(dialect, self.temperature)
        check_strict(dialect, [tool.function.model_fields_set for tool in self.tools])
        if self.top_logprobs is not None and not self.logprobs:
            raise refuse("logprobs must be true when top_logprobs is given")
        messages = _conversation(self.messages, dialect)
        return GenerateRequest(
            messages=messages,
            sampling=self._sampling(dialect),
            n=self.n,
            context_length=context_length,
            tool_use=tool_use(self.tools, self.tool_choice),
            json_answer=self._json_answer(messages, dialect),
        )

    def asked(self, head: Head, dialect: Dialect) -> Asked:
        """What of it shows in the answer."""
        shape = self.shape(dialect)
        return Asked(shape, head.model, head.created, head.prompt_tokens, n=self.n, id=head.id)

    def _json_answer(self, messages: Sequence[Message], dialect: Dialect) -> JsonAnswer | None:
        if self.response_format is None:
            return None
        if self.response_format.type == "json_object":
            check_json_object(dialect)
        is_asked_for = any("json" in message.content.lower() for message in messages)
        if self.response_format.type == "json_object" and not is_asked_for:
            # LIVE, words and all.
            raise refuse(
                '"messages" must contain the word "json" in some form, to use "response_format" '
                'of type "json_object".'
            )
        return self.response_format.json_answer()

    def _sampling(self, dialect: Dialect) -> Sampling:
        sampling = self.sampling(logprobs=self.logprobs, top_logprobs=self.top_logprobs or 0)
        if sampling.max_tokens is None:
            return replace(sampling, max_tokens=dialect.default_max_tokens)
        return sampling


def _conversation(messages: Sequence[ChatMessage], dialect: Dialect) -> tuple[Message, ...]:
    """The messages in an order the service takes: system once and first, no tool without a call."""
    if not messages:
        raise refuse("messages must be a non-empty list")
    for place, message in enumerate(messages):
        _check_role(place, message)
    _check_tool_order(messages)
    return tuple(
        Message(
            ROLES[message.role],
            _text(place, message, dialect),
            _calls(message),
            message.tool_call_id,
        )
        for place, message in enumerate(messages)
    )


def _calls(message: ChatMessage) -> tuple[ToolCall, ...]:
    return tuple(
        ToolCall(call.id, call.function.name, call.function.arguments)
        for call in message.tool_calls
    )


def _check_role(place: int, message: ChatMessage) -> None:
    """The rules are facts/data_plane §2.1, the texts a GUESS."""
    path = f"messages.{place}"
    if message.role not in ROLES:
        raise refuse(f"{path}.role must be one of system, user, assistant, tool")
    if message.role == "system" and place > 0:
        raise refuse(f"{path}.role must not be system: a system message comes once and first")
    if message.role == "tool" and not message.tool_call_id:
        raise refuse(f"{path}.tool_call_id must be given for the role tool")


def _check_tool_order(messages: Sequence[ChatMessage]) -> None:
    """Results come directly after the assistant's calls, one for each at most."""
    open_calls: set[str] = set()
    for place, message in enumerate(messages):
        if message.role == "tool":
            if message.tool_call_id not in open_calls:
                reason = "must follow the assistant message with its tool call"
                raise refuse(f"messages.{place} {reason}")
            open_calls.discard(message.tool_call_id)
        elif message.tool_calls and message.role != "assistant":
            raise refuse(f"messages.{place}.tool_calls must come from the assistant")
        else:
            open_calls = {call.id for call in message.tool_calls}


def _text(place: int, message: ChatMessage, dialect: Dialect) -> str:
    """What a model reads of it: reasoning of earlier answers comes back from clients, unread."""
    if not message.content and message.role != "assistant":
        raise refuse(f"messages.{place}.content must be given")
    passed_over = "reasoning" if dialect.reasons and message.role == "assistant" else ""
    for part in message.content:
        if part.type not in ("text", passed_over):
            raise refuse(f"content of type {part.type} is not supported by this model")
    return "".join(part.text for part in message.content)


def _choice(index: int, choice: Choice) -> dict[str, object]:
    message: dict[str, object] = {"role": "assistant", "content": "".join(choice.parts)}
    if choice.tool_calls:
        message["content"] = message["content"] or None
        message["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in choice.tool_calls
        ]
    return {
        "index": index,
        "message": message,
        "finish_reason": choice.finish_reason,
        "logprobs": logprobs_content(choice.logprobs) if choice.logprobs else None,
    }


def _delta(index: int, choice: Choice, text: str) -> dict[str, object]:
    delta: dict[str, object] = {"content": text}
    if choice.new_calls:
        delta = {"tool_calls": [_call_delta(call) for call in choice.new_calls]}
        if not choice.shown:
            delta["content"] = None
    elif choice.finish_reason == "tool_calls":
        delta = {}
    if not choice.shown:
        delta = {"role": "assistant", **delta}
    return {
        "index": index,
        "delta": delta,
        "finish_reason": choice.finish_reason,
        "logprobs": logprobs_content(choice.logprobs) if choice.logprobs else None,
    }


def _call_delta(call: ToolCallDelta) -> dict[str, object]:
    function = {"arguments": call.arguments}
    if not call.id:
        return {"index": call.index, "function": function}
    named = {"name": call.name, **function}
    return {"index": call.index, "id": call.id, "type": "function", "function": named}


CHAT = Shape("chatcmpl_", "chat.completion", "chat.completion.chunk", _choice, _delta)


def logprobs_content(logprobs: Sequence[TokenLogprob]) -> dict[str, object]:
    """`choices[].logprobs` (facts/data_plane §3.3)."""
    return {
        "content": [
            {**_logprob(token), "top_logprobs": [_logprob(top) for top in token.top]}
            for token in logprobs
        ]
    }


def _logprob(token: TokenLogprob) -> dict[str, object]:
    return {
        "token": token.text,
        "logprob": shown_logprob(token),
        "bytes": list(token.raw),
    }
