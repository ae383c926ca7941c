"""The Responses API of OpenAI: the request (facts/data_plane §2.3).

`background`, `store`, `previous_response_id`, `conversation` and `service_tier` are a 400 (DOC):
here as unknown fields (GUESS). Nothing is kept between calls: `input` is the whole conversation.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, JsonValue

from servemu.conversation import Head
from servemu.errors import BadRequest
from servemu.schemas.decoding import Body, Items, Pairs, PositiveInt, refuse, refuse_prompt
from servemu.schemas.reasoning import Dialect
from servemu.schemas.response_answers import Shown
from servemu.schemas.response_items import InputItem, conversation
from servemu.schemas.tools import (
    FunctionDefinition,
    FunctionName,
    NamedTool,
    ResponseFormat,
    ToolDefinition,
    tool_use,
)
from servemu_engine.base import GenerateRequest, JsonAnswer, Message, Sampling, ToolUse
from servemu_engine.errors import RequestRefused

API = "openai/v1/responses"
"""Its name in `api_types` of listings."""

NOT_PLAYED = ("custom", "apply_patch", "shell", "image_generation", "mcp", "web_search")
"""Types of tools that the service takes and nothing here can play."""


def _items(value: Any) -> Any:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


def _nested(value: Any) -> Any:
    """Flat `{type, name, schema}` as chat has it."""
    if not isinstance(value, dict) or value.get("type") != "json_schema":
        return value
    schema = {key: item for key, item in value.items() if key != "type"}
    return {"type": "json_schema", "json_schema": schema}


def _choice(value: Any) -> Any:
    return {"type": value} if isinstance(value, str) else value


class TextConfig(Body):
    """`text`: how the answer must look."""

    format: Annotated[ResponseFormat, BeforeValidator(_nested)] = Field(
        default_factory=ResponseFormat
    )
    verbosity: Literal["low", "medium", "high"] | None = None
    """Taken; the stand-ins have no such switch."""


class ResponseTool(Body):
    """An item of `tools`."""

    type: str
    name: str = ""
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: bool = False


class ResponseToolChoice(Body):
    """A word, or the one function that must be called."""

    type: str
    name: str = ""


class StreamOptions(Body):
    """Taken; nothing here obfuscates."""

    include_obfuscation: bool = False


class ResponsesRequest(Body):
    """Body of a Responses call. Defaults are chat's. What the docs do not list (`tool_choice`,
    `reasoning` and what follows) is taken as far as it asks for nothing else: GUESS.
    """

    model: str = ""
    input: Annotated[Items[InputItem], BeforeValidator(_items)]
    instructions: str = ""
    max_output_tokens: PositiveInt | None = None
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    stream: bool = False
    stream_options: StreamOptions | None = None
    text: TextConfig = Field(default_factory=TextConfig)
    tools: Items[ResponseTool] = Field(default_factory=list)
    tool_choice: Annotated[ResponseToolChoice, BeforeValidator(_choice)] | None = None
    parallel_tool_calls: bool = True
    reasoning: dict[str, JsonValue] | None = None
    """The stand-ins do not reason."""
    truncation: Literal["auto", "disabled"] = "disabled"
    metadata: Pairs = Field(default_factory=dict)
    user: str = ""
    client_request_id: str = ""
    usage_context: Pairs = Field(default_factory=dict)

    def generate_request(self, context_length: int, dialect: Dialect) -> GenerateRequest:
        """What the engine is asked. Raises `BadRequest`."""
        messages = conversation(self.instructions, self.input)
        return GenerateRequest(
            messages=messages,
            sampling=Sampling(
                max_tokens=self.max_output_tokens, temperature=self.temperature, top_p=self.top_p
            ),
            context_length=context_length,
            tool_use=self._tool_use(),
            json_answer=self._json_answer(messages),
        )

    def asked(self, head: Head, dialect: Dialect) -> Shown:
        """What of it shows in the answer."""
        return Shown(head, tuple(self._echoes()))

    def refusal(self, error: RequestRefused, dialect: Dialect) -> BadRequest:
        """A prompt that the engine will not take."""
        return refuse_prompt(error)

    def _tool_use(self) -> ToolUse | None:
        choice = self.tool_choice
        named = None if choice is None else NamedTool(type=choice.type, function=_name(choice))
        return tool_use(list(_functions(self.tools)), named)

    def _json_answer(self, messages: Sequence[Message]) -> JsonAnswer | None:
        """The text about the word JSON is OpenAI's own, from memory."""
        is_asked_for = any("json" in message.content.lower() for message in messages)
        if self.text.format.type == "json_object" and not is_asked_for:
            raise refuse(
                "Response input messages must contain the word 'json' in some form to use "
                "'text.format' of type 'json_object'."
            )
        return self.text.format.json_answer()

    def _echoes(self) -> Iterator[tuple[str, object]]:
        """Fields of the request that the response repeats."""
        choice = self.tool_choice
        yield "instructions", self.instructions or None
        yield "max_output_tokens", self.max_output_tokens
        yield "metadata", self.metadata
        yield "parallel_tool_calls", self.parallel_tool_calls
        yield "reasoning", self.reasoning or {"effort": None, "summary": None}
        yield "temperature", self.temperature
        yield "text", {"format": _flat(self.text.format)}
        yield "tool_choice", _shown_choice(choice)
        yield "tools", [tool.model_dump() for tool in self.tools]
        yield "top_p", self.top_p
        yield "truncation", self.truncation
        yield "user", self.user or None


def _name(choice: ResponseToolChoice) -> FunctionName:
    return FunctionName(name=choice.name)


def _functions(tools: Sequence[ResponseTool]) -> Iterator[ToolDefinition]:
    """The tools in chat's words. Raises `BadRequest`, texts GUESS."""
    for place, tool in enumerate(tools):
        if tool.type in NOT_PLAYED:
            raise refuse(f"tools.{place}.type {tool.type} is not played by the emulator")
        function = FunctionDefinition(
            name=tool.name,
            description=tool.description,
            parameters=tool.parameters,
            strict=tool.strict,
        )
        yield ToolDefinition(type=tool.type, function=function)


def _flat(given: ResponseFormat) -> dict[str, object]:
    if given.json_schema is None:
        return {"type": given.type}
    schema = given.json_schema
    return {
        "type": given.type,
        "name": schema.name,
        "description": schema.description or None,
        "schema": schema.schema_,
        "strict": schema.strict,
    }


def _shown_choice(choice: ResponseToolChoice | None) -> object:
    if choice is None:
        return "auto"
    return {"type": choice.type, "name": choice.name} if choice.name else choice.type
