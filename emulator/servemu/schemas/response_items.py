"""`input` of the Responses API: items of a conversation, and the messages they are for the engine.

Texts of refusals are OpenAI's own, from memory, but where a GUESS is marked.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, JsonValue

from servemu.schemas.decoding import Body, Items, refuse
from servemu_engine.base import Message, ToolCall

MAX_ID = 64
PREFIXES = {"message": "msg", "function_call": "fc"}
"""Of the ids that answers give to items (facts/data_plane §2.3)."""
SYSTEM = ("system", "developer")
TEXTS = ("input_text", "output_text", "text")


class ItemPart(Body):
    """Some content of an item."""

    type: str
    text: str = ""
    annotations: list[JsonValue] = Field(default_factory=list)
    logprobs: list[JsonValue] = Field(default_factory=list)
    image_url: JsonValue = None
    file_id: JsonValue = None
    file_data: JsonValue = None
    filename: JsonValue = None
    detail: JsonValue = None
    refusal: JsonValue = None


def _parts(value: Any) -> Any:
    return [{"type": "input_text", "text": value}] if isinstance(value, str) else value


Parts = Annotated[Items[ItemPart], BeforeValidator(_parts)]


class InputItem(Body):
    """A message, a function call, its output, or reasoning of an earlier answer."""

    type: str = "message"
    id: str = ""
    status: str = ""
    role: str = ""
    content: Parts = Field(default_factory=list)
    phase: JsonValue = None
    call_id: str = ""
    name: str = ""
    arguments: str = "{}"
    parsed_arguments: JsonValue = None
    """openai-python sends it back with items that it has parsed."""
    output: Parts = Field(default_factory=list)
    summary: JsonValue = None
    encrypted_content: JsonValue = None


def conversation(instructions: str, items: Sequence[InputItem]) -> tuple[Message, ...]:
    """What the engine reads: all that is said by system and developer first, as one message.

    Raises `BadRequest`.
    """
    for place, item in enumerate(items):
        _check_id(place, item)
    _check_outputs(items)
    said = [instructions, *(_text(n, item) for n, item in enumerate(items) if _is_system(item))]
    system = "\n\n".join(filter(None, said))
    turns = tuple(_turns(items))
    if not turns:
        raise refuse("input must hold at least one message")  # GUESS
    return (Message("system", system), *turns) if system else turns


def _turns(items: Sequence[InputItem]) -> Iterator[Message]:
    """Calls that stand side by side are one turn, with the text before them."""
    text, calls = "", []
    for place, item in enumerate(items):
        if item.type == "function_call":
            calls.append(ToolCall(item.call_id, item.name, item.arguments))
            continue
        if item.type == "reasoning" or _is_system(item):
            continue
        if calls or text:
            yield Message("assistant", text, tuple(calls))
            text, calls = "", []
        if item.type == "function_call_output":
            yield Message("tool", _joined(place, item.output), tool_call_id=item.call_id)
        elif item.role == "assistant":
            text = _text(place, item)
        else:
            yield Message("user", _text(place, item))
    if calls or text:
        yield Message("assistant", text, tuple(calls))


def _is_system(item: InputItem) -> bool:
    return item.type == "message" and item.role in SYSTEM


def _check_id(place: int, item: InputItem) -> None:
    if item.type not in ("message", "function_call", "function_call_output", "reasoning"):
        raise refuse(f"input.{place}.type {item.type} is not played by the emulator")
    if item.type == "message" and item.role not in (*SYSTEM, "user", "assistant"):
        raise refuse(
            f"Invalid value: '{item.role}'. Supported values are: 'assistant', 'system', "
            "'developer', and 'user'."
        )
    if len(item.id) > MAX_ID:
        raise refuse(
            f"Invalid 'input[{place}].id': string too long. Expected a string with maximum length "
            f"{MAX_ID}, but got a string with length {len(item.id)} instead."
        )
    prefix = PREFIXES.get(item.type, "")
    if item.id and not item.id.startswith(prefix):
        raise refuse(
            f"Invalid 'input[{place}].id': '{item.id}'. Expected an ID that begins with '{prefix}'."
        )


def _check_outputs(items: Sequence[InputItem]) -> None:
    """Every output has its call before it, every call its output after it."""
    waiting: list[str] = []
    for item in items:
        if item.type == "function_call":
            waiting.append(item.call_id)
        elif item.type == "function_call_output":
            if item.call_id not in waiting:
                reason = "No tool call found for function call output with call_id"
                raise refuse(f"{reason} {item.call_id}.")
            waiting.remove(item.call_id)
    if waiting:
        raise refuse(f"No tool output found for function call {waiting[0]}.")


def _text(place: int, item: InputItem) -> str:
    return _joined(place, item.content)


def _joined(place: int, parts: Sequence[ItemPart]) -> str:
    for part in parts:
        if part.type not in TEXTS:
            raise refuse(f"input.{place}: {part.type} is not supported by this model")  # GUESS
    return "".join(part.text for part in parts)
