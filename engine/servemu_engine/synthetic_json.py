"""JSON and tool calls without a model: made up from the schema, deterministic.

Every named property is given, lists have one to three items, strings are a word or two of the
question. With `tool_choice` auto a tool is called when the conversation ends with the user's turn
and that shares a word of four letters or more with the tool's name or description.
"""

import json
import re
from random import Random
from typing import Any

from servemu_engine.base import GenerateRequest, JsonSchema, Tool, ToolCall
from servemu_engine.json_schema import ANY_OBJECT, finite, properties_of, types_of
from servemu_engine.scripted import Script
from servemu_engine.tools import usable

_WORD = re.compile(r"[a-z]{4,}")


def script_of(request: GenerateRequest, topic: str, rng: Random) -> Script | None:
    """What to say where the request wants JSON or a call; None: free text.

    Raises `InvalidPrompt` for a schema that admits nothing.
    """
    tool = _called(request, rng)
    if tool is not None:
        parameters = {"additionalProperties": False, **tool.parameters, "type": "object"}
        arguments = json.dumps(made_up(parameters, topic, rng), ensure_ascii=False)
        return Script(tool_calls=(ToolCall("", tool.name, arguments),))
    if request.json_answer is None:
        return None
    value = made_up(request.json_answer.schema or ANY_OBJECT, topic, rng)
    return Script(json.dumps(value, ensure_ascii=False))


def check(request: GenerateRequest) -> None:
    """Raises `InvalidPrompt` for a schema that admits nothing."""
    for tool in usable(request.tool_use):
        finite({"additionalProperties": False, **tool.parameters, "type": "object"})
    if request.json_answer is not None:
        finite(request.json_answer.schema or ANY_OBJECT)


def made_up(schema: JsonSchema, topic: str, rng: Random) -> Any:
    """A value of the schema; the subset is that of `json_schema.finite`."""
    narrowed = finite(schema)
    if "const" in narrowed:
        return narrowed["const"]
    if "enum" in narrowed:
        return rng.choice(narrowed["enum"])
    kinds = [kind for kind in types_of(schema) or ("string",) if kind != "null"]
    match kinds[0] if kinds else "null":
        case "object":
            names = properties_of(schema) or {}
            if not names and schema.get("additionalProperties") is not False:
                names = {"answer": {"type": "string"}}
            return {name: made_up(one, topic, rng) for name, one in names.items()}
        case "array":
            items = schema.get("items") or {"type": "string"}
            return [made_up(items, topic, rng) for _ in range(rng.randint(1, 3))]
        case "string":
            words = topic.split()
            first = rng.randrange(len(words))
            return " ".join(words[first : first + 2])
        case "integer":
            return rng.randint(0, 99)
        case "number":
            return round(rng.uniform(0, 100), 1)
        case "boolean":
            return rng.random() < 0.5
    return None


def _called(request: GenerateRequest, rng: Random) -> Tool | None:
    tools = usable(request.tool_use)
    if not tools or request.tool_use is None:
        return None
    if request.tool_use.choice == "required":
        return tools[0] if len(tools) == 1 else rng.choice(tools)
    if not request.messages or request.messages[-1].role != "user":
        return None
    asked = set(_WORD.findall(request.messages[-1].content.lower()))
    about = (tool.name.replace("_", " ") + " " + tool.description for tool in tools)
    fitting = [asked & set(_WORD.findall(text.lower())) for text in about]
    best = max(range(len(tools)), key=lambda place: len(fitting[place]))
    return tools[best] if fitting[best] else None
