"""The Messages API of Anthropic: the request.

Refusals are Claude's: the message is JSON with a text in it (LIVE, facts/data_plane §2.5), and the
text is pydantic's, as Anthropic's own service has it. Other texts are Anthropic's, from memory, but
where a GUESS is marked.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue, ValidationError

from servemu.conversation import Head
from servemu.errors import BadRequest
from servemu.schemas.decoding import Body, Items, PositiveInt
from servemu.schemas.json_schema import check_schema
from servemu.schemas.message_answers import ShownMessage
from servemu.schemas.reasoning import Dialect, Thinking, refuse_as_claude, refuse_prompt_of
from servemu.schemas.sampling import MAX_STOPS
from servemu.schemas.tools import MAX_TOOLS, TOOL_NAME
from servemu_engine.base import GenerateRequest, Message, Sampling, Tool, ToolCall, ToolUse
from servemu_engine.errors import RequestRefused

API = "anthropic/v1/messages"
"""Its name in `api_types` of listings."""

CHOICES: Mapping[str, Literal["none", "auto", "required"]] = {
    "auto": "auto",
    "any": "required",
    "none": "none",
    "tool": "required",
}
"""Words of `tool_choice` → the engine's."""


NO_OBJECT = "Input should be a valid dictionary or object to extract fields from"
"""pydantic's other wording, which names no class."""

MAX_KEYS = 1000
"""Of a tool's schema: ours. Claude takes any JSON schema (GUESS: the subset is chat's), and here
arguments follow what of it is in the subset.
"""


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
            raise refuse_as_claude("stop_sequences: each stop sequence must contain non-whitespace")
        if len(self.stop_sequences) > MAX_STOPS:
            reason = f"List should have at most {MAX_STOPS} items after validation"
            raise refuse_as_claude(f"stop_sequences: {reason}, not {len(self.stop_sequences)}")
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

    def refusal(self, error: RequestRefused, dialect: Dialect) -> BadRequest:
        """A prompt that the engine will not take, in the words of Claude whoever plays it."""
        return refuse_prompt_of(replace(dialect, refuses_as_claude=True), error)

    def _conversation(self) -> tuple[Message, ...]:
        if not self.messages:
            raise refuse_as_claude("messages: at least one message is required")
        _check_results(self.messages)
        system = "\n\n".join(block.text for block in self.system)
        turns = [
            turn for place, message in enumerate(self.messages) for turn in _turns(place, message)
        ]
        return (Message("system", system), *turns) if system else tuple(turns)

    def _tool_use(self) -> ToolUse | None:
        _check_tools(self.tools)
        choice, names = self.tool_choice, [tool.name for tool in self.tools]
        if choice is not None and not names:
            raise refuse_as_claude("tool_choice may only be specified while providing tools.")
        if choice is not None and choice.type == "tool" and choice.name not in names:
            raise refuse_as_claude(f"tool_choice: Tool '{choice.name}' not found in provided tools")
        if not names:
            return None
        known = tuple(Tool(one.name, one.description, one.input_schema) for one in self.tools)
        name = choice.name if choice is not None and choice.type == "tool" else ""
        return ToolUse(known, CHOICES["auto" if choice is None else choice.type], name)


def decode_messages(value: Mapping[str, Any]) -> MessagesRequest:
    """The body. Raises `BadRequest` for the first thing wrong with it."""
    try:
        return MessagesRequest.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
    steps = [str(step) for step in first["loc"]]
    if steps[0] == "tools" and len(steps) > 2:
        steps.insert(2, "custom")  # LIVE: "tools.0.custom.strict: Extra inputs are not permitted"
    told = NO_OBJECT if first["type"] == "model_type" else first["msg"]
    raise refuse_as_claude(f"{'.'.join(steps)}: {told}")


def _check_tools(tools: Sequence[MessageTool]) -> None:
    """The limit of 32 is chat's (GUESS that it is this API's too)."""
    if len(tools) > MAX_TOOLS:
        reason = f"List should have at most {MAX_TOOLS} items after validation, not {len(tools)}"
        raise refuse_as_claude(f"tools: {reason}")
    for place, tool in enumerate(tools):
        path = f"tools.{place}.custom"
        if not TOOL_NAME.fullmatch(tool.name):
            reason = f"String should match pattern '^{TOOL_NAME.pattern}$'"
            raise refuse_as_claude(f"{path}.name: {reason}")
        if tool.input_schema.get("type") != "object":
            raise refuse_as_claude(f"{path}.input_schema.type: Input should be 'object'")
        try:
            check_schema(tool.input_schema, MAX_KEYS, subset=False)
        except BadRequest as error:
            told = error.message.strip().removeprefix("Invalid JSON schema - ")
            raise refuse_as_claude(
                f"{path}.input_schema: JSON schema is invalid - {told}"
            ) from error
    if len({tool.name for tool in tools}) < len(tools):
        raise refuse_as_claude("tools: Tool names must be unique.")


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
        raise refuse_as_claude(f"messages.{place}: all messages must have non-empty content")


def _check_results(messages: Sequence[InputMessage]) -> None:
    """Each result answers a call of the message before it, and none is left out."""
    called: list[str] = []
    for place, message in enumerate(messages):
        _check_blocks(place, message)
        results = [block.tool_use_id for block in message.content if block.type == "tool_result"]
        for number, block in enumerate(message.content):
            if block.type == "tool_result" and block.tool_use_id not in called:
                raise refuse_as_claude(
                    f"messages.{place}.content.{number}: unexpected `tool_use_id` found in "
                    f"`tool_result` blocks: {block.tool_use_id}. Each `tool_result` block must "
                    "have a corresponding `tool_use` block in the previous message."
                )
        _check_none_left(place - 1, [call for call in called if call not in results])
        called = [block.id for block in message.content if block.type == "tool_use"]
    _check_none_left(len(messages) - 1, called)


def _check_none_left(place: int, unanswered: Sequence[str]) -> None:
    if unanswered:
        raise refuse_as_claude(
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
            raise refuse_as_claude(
                f"messages.{place}.content.{number}.type: {block.type} is not supported by this "
                f"model in a message of the {message.role}"
            )
