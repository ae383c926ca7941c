"""What families of reasoning models take and answer (facts/data_plane §2.1, §2.5, §3.6).

The stand-ins do not reason: where the real content is a list, its reasoning item has an empty
summary. R1 distills answer plain text, as their stand-in writes it (GUESS).
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pydantic import Field

from servemu.errors import BadRequest, JsonObjectRefused
from servemu.schemas.answers import Choice, Shape
from servemu.schemas.decoding import Body, refuse, refuse_prompt
from servemu_engine.errors import PromptTooLong, RequestRefused

EFFORTS = ("minimal", "low", "medium", "high")


class Thinking(Body):
    """`thinking` of Claude."""

    type: Literal["enabled", "disabled"]
    budget_tokens: int = Field(1024, ge=1)
    """Default and least value are a GUESS; nothing here thinks, so nothing is spent of it."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """What a family takes and answers unlike the others."""

    takes_effort: bool = False
    takes_thinking: bool = False
    answers_lists: bool = False
    """Always; Claude only when it was asked to think."""
    takes_stop: bool = True
    takes_json_object: bool = True
    takes_strict: bool = True
    """In a tool's function."""
    takes_temperature: bool = True
    """False: the default alone."""
    default_max_tokens: int | None = None
    """None: until the context ends."""
    refuses_as_claude: bool = False

    @property
    def reasons(self) -> bool:
        """Its answers may hold reasoning, and so may conversations with it."""
        return self.answers_lists or self.takes_thinking


PLAIN = Dialect()
DIALECTS: Mapping[str, Dialect] = {
    "gpt-oss": Dialect(takes_effort=True, answers_lists=True, takes_stop=False),
    "gpt": Dialect(takes_effort=True, takes_temperature=False),
    "claude": Dialect(
        takes_thinking=True,
        takes_json_object=False,
        takes_strict=False,
        default_max_tokens=1000,
        refuses_as_claude=True,
    ),
}
"""By `model_type` of the catalogue's family. Which models refuse a temperature is not in the facts:
GPT-5 from memory of OpenAI's docs. 1000 tokens are DOC for Claude Sonnet 4."""


def dialect_of(model_type: str) -> Dialect:
    """That of most models where a family has none of its own."""
    return DIALECTS.get(model_type, PLAIN)


def check_effort(dialect: Dialect, effort: str | None) -> None:
    """Raises `BadRequest`; that others do not know the field is a GUESS, and so is the text about
    its values."""
    if effort is not None and not dialect.takes_effort:
        raise refuse('json: unknown field "reasoning_effort"')
    if effort is not None and effort not in EFFORTS:
        raise refuse(f"reasoning_effort must be one of {', '.join(EFFORTS)}")


def check_thinking(dialect: Dialect, thinking: Thinking | None) -> None:
    """Raises `BadRequest` (LIVE: only Claude knows the field)."""
    if thinking is not None and not dialect.takes_thinking:
        raise refuse('json: unknown field "thinking"')


def check_stop(dialect: Dialect, stop: list[str]) -> None:
    """Raises `BadRequest` (LIVE, for gpt-oss)."""
    if stop and not dialect.takes_stop:
        raise BadRequest('Unsupported parameter: "stop" is not supported with this model.')


def check_temperature(dialect: Dialect, temperature: float) -> None:
    """Raises `BadRequest` (LIVE)."""
    if temperature != 1 and not dialect.takes_temperature:
        raise BadRequest(
            f"Unsupported value: 'temperature' does not support {temperature} with this model. "
            "Only the default (1) value is supported."
        )


def check_strict(dialect: Dialect, fields: Sequence[Iterable[str]]) -> None:
    """Raises `BadRequest` if a tool has it (LIVE, for Claude). `fields`: given of each function."""
    for place, given in enumerate(fields):
        if "strict" in given and not dialect.takes_strict:
            reason = f"tools.{place}.custom.strict: Extra inputs are not permitted"
            raise refuse_as_claude(reason)


def refuse_as_claude(reason: str) -> BadRequest:
    """A 400 as Claude's model server says it: JSON with a text in it (LIVE)."""
    return BadRequest(json.dumps({"message": reason}, separators=(",", ":")))


def refuse_prompt_of(dialect: Dialect, error: RequestRefused) -> BadRequest:
    """A prompt that the engine will not take; Claude's text of a long one is LIVE."""
    if not dialect.refuses_as_claude:
        return refuse_prompt(error)
    is_long = isinstance(error, PromptTooLong)
    return refuse_as_claude("Input is too long for requested model." if is_long else str(error))


def check_json_object(dialect: Dialect) -> None:
    """Raises `JsonObjectRefused` (LIVE, for Claude)."""
    if not dialect.takes_json_object:
        raise JsonObjectRefused


def in_lists(shape: Shape) -> Shape:
    """The shape with `content` as a list: reasoning, then text; in a stream one item an event."""

    def choice(index: int, answered: Choice) -> dict[str, object]:
        item = shape.choice(index, answered)
        message = item["message"]
        assert isinstance(message, dict)
        items = [_reasoning()]
        if message["content"]:
            items.append(_text(message["content"]))
        return {**item, "message": {**message, "content": items}}

    def delta(index: int, answered: Choice, text: str) -> dict[str, object]:
        item = shape.delta(index, answered, text)
        parts = item["delta"]
        assert isinstance(parts, dict)
        if not answered.shown:
            return {**item, "delta": {"role": "assistant", "content": [_reasoning()]}}
        if parts.get("content"):
            return {**item, "delta": {**parts, "content": [_text(text)]}}
        return item

    return replace(shape, choice=choice, delta=delta, opens=True)


def _reasoning() -> dict[str, object]:
    return {"type": "reasoning", "summary": [{"type": "summary_text", "text": ""}]}


def _text(text: str) -> dict[str, object]:
    return {"type": "text", "text": text}
