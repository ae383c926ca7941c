"""`tools`, `tool_choice` and `response_format` of a chat call (facts/data_plane §2.1, §2.4)."""

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from servemu.schemas.decoding import Body, refuse
from servemu.schemas.json_schema import check_schema
from servemu_engine.base import JsonAnswer, Tool, ToolUse

MAX_TOOLS = 32
MAX_TOOL_KEYS = 16
"""The guide's number; the API reference says 15 properties."""
MAX_ANSWER_KEYS = 64
"""From memory of the docs."""
TOOL_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
"""OpenAI's rule; that it is the service's too is a GUESS."""


class FunctionDefinition(Body):
    """What a tool does and takes."""

    name: str
    description: str = ""
    parameters: dict[str, Any] = Field(default_factory=dict)
    strict: bool = False
    """Taken, and true for every call here: arguments always follow the schema."""


class ToolDefinition(Body):
    """An item of `tools`."""

    type: str
    function: FunctionDefinition


class FunctionName(Body):
    """The function that must be called."""

    name: str


class NamedTool(Body):
    """`tool_choice` for one tool."""

    type: str = "function"
    function: FunctionName


class FunctionCall(Body):
    """What a call of an earlier turn asked for."""

    name: str
    arguments: str = "{}"


class AssistantToolCall(Body):
    """A call in an assistant's message."""

    id: str
    type: str = "function"
    function: FunctionCall
    index: int = 0
    """Ignored; clients that put streamed deltas together send it back."""


class AnswerSchema(Body):
    """`json_schema` of `response_format`."""

    name: str = ""
    description: str = ""
    schema_: dict[str, Any] = Field(alias="schema")
    strict: bool = False


class ResponseFormat(Body):
    """How the answer must look."""

    type: Literal["text", "json_object", "json_schema"] = "text"
    json_schema: AnswerSchema | None = None

    def json_answer(self) -> JsonAnswer | None:
        """What the engine is asked; None: any text. Raises `BadRequest`, its own text GUESS."""
        if self.type == "text":
            return None
        if self.type == "json_object":
            return JsonAnswer()
        if self.json_schema is None:
            raise refuse("response_format.json_schema must be given for the type json_schema")
        check_schema(self.json_schema.schema_, MAX_ANSWER_KEYS)
        return JsonAnswer(self.json_schema.schema_)


def _named(value: Any) -> Any:
    return {"function": {"name": ""}, "type": value} if isinstance(value, str) else value


ToolChoice = Annotated[NamedTool, BeforeValidator(_named)]
"""A word is decoded as the type of an unnamed choice."""


def tool_use(tools: Sequence[ToolDefinition], choice: NamedTool | None) -> ToolUse | None:
    """What the engine is asked; None without tools. Raises `BadRequest`, texts GUESS."""
    if len(tools) > MAX_TOOLS:
        raise refuse(f"tools must have at most {MAX_TOOLS} items")
    functions = [_function(place, tool) for place, tool in enumerate(tools)]
    names = [function.name for function in functions]
    if len(set(names)) < len(names):
        raise refuse("tools must have different names")
    word, name = _choice(choice, names)
    if not functions:
        return None
    known = tuple(Tool(one.name, one.description, one.parameters) for one in functions)
    return ToolUse(known, word, name)


def _function(place: int, tool: ToolDefinition) -> FunctionDefinition:
    path = f"tools.{place}"
    if tool.type != "function":
        raise refuse(f"{path}.type must be function")
    if not TOOL_NAME.fullmatch(tool.function.name):
        raise refuse(f"{path}.function.name must match ^{TOOL_NAME.pattern}$")
    parameters = tool.function.parameters
    if parameters.get("type", "object") != "object":
        raise refuse(f"{path}.function.parameters must be of type object")
    check_schema(parameters, MAX_TOOL_KEYS)
    return tool.function


def _choice(
    choice: NamedTool | None, names: Sequence[str]
) -> tuple[Literal["none", "auto", "required"], str]:
    """The word, and the one tool that is named."""
    match None if choice is None else choice.type:
        case None | "auto":
            return "auto", ""
        case "none":
            return "none", ""
        case "required" if names:
            return "required", ""
        case "function" if choice is not None and choice.function.name in names:
            return "required", choice.function.name
        case "required" | "function":
            raise refuse("tool_choice must name one of the tools")
    raise refuse("tool_choice must be none, auto, required or a function")
