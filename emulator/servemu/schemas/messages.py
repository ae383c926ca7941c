"""The Messages API of Anthropic: the request.

Refusals are Claude's: the message is JSON with a text in it (LIVE, facts/data_plane §2.5), and the
text is pydantic's, as Anthropic's own service has it. Other texts are Anthropic's, from memory, but
where a GUESS is marked.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, ValidationError

from servemu.conversation import Head
from servemu.errors import BadRequest
from servemu.schemas.decoding import Body, Items, PositiveInt
from servemu.schemas.message_answers import ShownMessage
from servemu.schemas.reasoning import Dialect, Thinking
from servemu.schemas.tools import (
    FunctionDefinition,
    FunctionName,
    NamedTool,
    ToolDefinition,
    tool_use,
)
from servemu_engine.base import GenerateRequest, Message, Sampling, ToolCall, ToolUse
from servemu_engine.errors import PromptTooLong, RequestRefused

API = "anthropic/v1/messages"
"""Its name in `api_types` of listings."""

CHOICES = {"auto": "auto", "any": "required", "none": "none", "tool": "function"}
"""Words of `tool_choice` → chat's."""


def refuse(reason: str) -> BadRequest:
    """A 400 as Claude's model server says it."""
    return BadRequest(json.dumps({"message": reason}, separators=(",", ":")))


def _blocks(value: Any) -> Any:
    return [{"type": "text", "text": value}] if isinstance(value, str) else value


class TextBlock(Body):
    """A text, in a system prompt or in the result of a tool."""

    type: Literal["text"]
    text: str
    cache_control: JsonValue = None
    citations: JsonValue = None


class ContentBlock(Body):
    """An item of a message's content."""

    type: str
    text: str = ""
    id: str = ""
    name: str = ""
    input: dict[str, JsonValue] = Field(default_factory=dict)
    tool_use_id: str = ""
    content: Annotated[Items[TextBlock], BeforeValidator(_blocks)] = Field(default_factory=list)
    is_error: bool = False
    thinking: str = ""
    signature: str = ""
    data: str = ""
    source: JsonValue = None
    title: JsonValue = None
    context: JsonValue = None
    caller: JsonValue = None
    cache_control: JsonValue = None
    """Taken; nothing is kept between requests."""
    citations: JsonValue = None


class InputMessage(Body):
    """One message as it is sent."""

    role: Literal["user", "assistant"]
    content: Annotated[Items[ContentBlock], BeforeValidator(_blocks)]


class MessageTool(Body):
    """An item of `tools`. `strict` is not known (LIVE)."""

    type: Literal["custom"] = "custom"
    name: str
    description: str = ""
    input_schema: dict[str, Any]
    cache_control: JsonValue = None


class MessageToolChoice(Body):
    """Whether a tool must be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: str = ""
    disable_parallel_tool_use: bool = False


class MessagesRequest(Body):
    """Body of a Messages call. Defaults and ranges are Anthropic's."""

    model: str
    messages: Items[InputMessage]
    max_tokens: PositiveInt
    system: Annotated[Items[TextBlock], BeforeValidator(_blocks)] = Field(default_factory=list)
    stop_sequences: Items[str] = Field(default_factory=list)
    stream: bool = False
    temperature: float = Field(1.0, ge=0, le=1)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: PositiveInt | None = None
    tools: Items[MessageTool] = Field(default_factory=list)
    tool_choice: MessageToolChoice | None = None
    thinking: Thinking | None = None
    """Taken; the stand-ins do not think."""
    metadata: dict[str, JsonValue] = Field(default_factory=dict)
    cache_control: JsonValue = None

    def generate_request(self, context_length: int, dialect: Dialect) -> GenerateRequest:
        """What the engine is asked. Raises `BadRequest`."""
        if any(not text.strip() for text in self.stop_sequences):
            raise refuse("stop_sequences: each stop sequence must contain non-whitespace")
        return GenerateRequest(
            messages=self._conversation(),
            sampling=Sampling(
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                top_k=self.top_k,
                stop=tuple(self.stop_sequences),
            ),
            context_length=context_length,
            tool_use=self._tool_use(),
        )

    def asked(self, head: Head, dialect: Dialect) -> ShownMessage:
        """What of it shows in the answer."""
        return ShownMessage(head)

    def refusal(self, error: RequestRefused) -> BadRequest:
        """A prompt that the engine will not take; the text of a long one is LIVE."""
        is_long = isinstance(error, PromptTooLong)
        return refuse("Input is too long for requested model." if is_long else str(error))

    def _conversation(self) -> tuple[Message, ...]:
        if not self.messages:
            raise refuse("messages: at least one message is required")
        _check_results(self.messages)
        system = "\n\n".join(block.text for block in self.system)
        turns = [
            turn for place, message in enumerate(self.messages) for turn in _turns(place, message)
        ]
        return (Message("system", system), *turns) if system else tuple(turns)

    def _tool_use(self) -> ToolUse | None:
        tools = [
            ToolDefinition(
                type="function",
                function=FunctionDefinition(
                    name=tool.name, description=tool.description, parameters=tool.input_schema
                ),
            )
            for tool in self.tools
        ]
        choice = self.tool_choice
        if choice is None:
            return tool_use(tools, None)
        function = FunctionName(name=choice.name)
        return tool_use(tools, NamedTool(type=CHOICES[choice.type], function=function))


def decode_messages(value: Mapping[str, Any]) -> MessagesRequest:
    """The body. Raises `BadRequest` for the first thing wrong with it."""
    try:
        return MessagesRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    steps = [str(step) for step in first["loc"]]
    if steps[0] == "tools" and len(steps) > 2:
        steps.insert(2, "custom")  # LIVE: "tools.0.custom.strict: Extra inputs are not permitted"
    raise refuse(f"{'.'.join(steps)}: {first['msg']}")


def _turns(place: int, message: InputMessage) -> Iterator[Message]:
    """Results of tools are turns of their own, before the text that stands with them."""
    for block in message.content:
        if block.type == "tool_result":
            text = "".join(part.text for part in block.content)
            yield Message("tool", text, tool_call_id=block.tool_use_id)
    text = "".join(block.text for block in message.content if block.type == "text")
    calls = tuple(
        ToolCall(block.id, block.name, json.dumps(block.input))
        for block in message.content
        if block.type == "tool_use"
    )
    if text or calls:
        yield Message(message.role, text, calls)
    elif not message.content or all(block.type == "text" for block in message.content):
        raise refuse(f"messages.{place}: all messages must have non-empty content")


def _check_results(messages: Sequence[InputMessage]) -> None:
    """Each result answers a call of the message before it, and none is left out."""
    called: list[str] = []
    for place, message in enumerate(messages):
        _check_blocks(place, message)
        results = [block.tool_use_id for block in message.content if block.type == "tool_result"]
        for number, block in enumerate(message.content):
            if block.type == "tool_result" and block.tool_use_id not in called:
                raise refuse(
                    f"messages.{place}.content.{number}: unexpected `tool_use_id` found in "
                    f"`tool_result` blocks: {block.tool_use_id}. Each `tool_result` block must "
                    "have a corresponding `tool_use` block in the previous message."
                )
        _check_none_left(place - 1, [call for call in called if call not in results])
        called = [block.id for block in message.content if block.type == "tool_use"]
    _check_none_left(len(messages) - 1, called)


def _check_none_left(place: int, unanswered: Sequence[str]) -> None:
    if unanswered:
        raise refuse(
            f"messages.{place}: `tool_use` ids were found without `tool_result` blocks immediately "
            f"after: {', '.join(unanswered)}. Each `tool_use` block must have a corresponding "
            "`tool_result` block in the next message."
        )


BLOCKS: Mapping[str, Sequence[str]] = {
    "user": ("text", "tool_result"),
    "assistant": ("text", "tool_use", "thinking", "redacted_thinking"),
}
"""What the stand-ins can read; thinking is passed over."""


def _check_blocks(place: int, message: InputMessage) -> None:
    for number, block in enumerate(message.content):
        if block.type not in BLOCKS[message.role]:  # text GUESS
            raise refuse(
                f"messages.{place}.content.{number}.type: {block.type} is not supported by this "
                f"model in a message of the {message.role}"
            )
