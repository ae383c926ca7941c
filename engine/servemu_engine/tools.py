"""Tools in text: how a model is told of them, how it writes a call, and the call read back.

The form is that of Hermes and Qwen: `<tool_call>`, a JSON object, `</tool_call>`. Blanks and order
are fixed by the grammar, so a call is found by its marks and its arguments pass unparsed.
"""

import json
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from servemu_engine.base import FinishReason, Message, Tool, ToolCall, ToolCallDelta, ToolUse
from servemu_engine.stopping import num_undecided

TAG = "<tool_call>"
CALL_BEGIN = TAG + '\n{"name": "'
ARGUMENTS = '", "arguments": '
CALL_END = "}\n</tool_call>"

_INSTRUCTION = """\
# Tools

You may call one function to help with the user's query. The functions, as JSON:
<tools>
{tools}
</tools>

To call one, answer with its name and arguments as JSON within <tool_call></tool_call>:
<tool_call>
{{"name": "the function's name", "arguments": {{"an argument": "its value"}}}}
</tool_call>"""


def draw_call_id() -> str:
    """`call_` and 24 hex digits; their number is a GUESS (facts/data_plane §3.1)."""
    return f"call_{uuid.uuid4().hex[:24]}"


def usable(tool_use: ToolUse | None) -> tuple[Tool, ...]:
    """The tools that may be called. With `none` the model does not see any (GUESS)."""
    if tool_use is None or tool_use.choice == "none":
        return ()
    return tuple(t for t in tool_use.tools if not tool_use.name or t.name == tool_use.name)


def definition(tool: Tool) -> dict[str, object]:
    """As chat templates and OpenAI's API write it."""
    function = {
        "name": tool.name,
        "description": tool.description,
        "parameters": dict(tool.parameters) or {"type": "object", "properties": {}},
    }
    return {"type": "function", "function": function}


def call_text(call: ToolCall) -> str:
    """A call as a model writes it."""
    return f"{CALL_BEGIN}{call.name}{ARGUMENTS}{call.arguments or '{}'}{CALL_END}"


def spelled_out(messages: Sequence[Message], tools: Sequence[Tool]) -> tuple[Message, ...]:
    """The conversation for a chat template that knows no tools: all of it in plain turns.

    The tools are named in the system turn; results are a user's turn, several in a row are one.
    """
    turns: list[Message] = []
    if tools:
        lines = "\n".join(json.dumps(definition(tool), ensure_ascii=False) for tool in tools)
        turns.append(Message("system", _INSTRUCTION.format(tools=lines)))
    answered = False
    for message in messages:
        if message.role == "system" and turns and turns[-1].role == "system":
            turns[-1] = Message("system", f"{message.content}\n\n{turns[-1].content}")
        elif message.role == "tool":
            result = f"<tool_response>\n{message.content}\n</tool_response>"
            before = f"{turns.pop().content}\n" if answered else ""
            turns.append(Message("user", before + result))
        else:
            calls = [call_text(call) for call in message.tool_calls]
            text = "\n".join([*([message.content] if message.content else []), *calls])
            turns.append(Message(message.role, text if calls else message.content))
        answered = message.role == "tool"
    return tuple(turns)


@dataclass(frozen=True, slots=True)
class Spoken:
    """Some more of an answer, text and calls apart."""

    text: str = ""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    finish_reason: FinishReason | None = None


class ToolCallText:
    """Finds the call in an answer while it grows. What may still become a mark is held back."""

    def __init__(self, draw_id: Callable[[], str] = draw_call_id) -> None:
        self._draw_id = draw_id
        self._held = ""
        self._mark = CALL_BEGIN
        """What is looked for now: begin, arguments, end; empty when the call is over."""

    def push(self, text: str, finish_reason: FinishReason | None) -> Spoken:
        """Take some more text. `tool_calls` is the reason when a whole call ended the answer."""
        self._held += text
        shown: list[str] = []
        deltas: list[ToolCallDelta] = []
        while self._mark:
            before, mark, rest = self._held.partition(self._mark)
            if not mark:
                self._hold(shown, deltas, is_last=finish_reason is not None)
                break
            self._held = rest
            self._passed(before, shown, deltas)
        if not self._mark and finish_reason == "stop":
            finish_reason = "tool_calls"
        return Spoken("".join(shown), tuple(deltas), finish_reason)

    def _passed(self, before: str, shown: list[str], deltas: list[ToolCallDelta]) -> None:
        if self._mark == CALL_BEGIN:
            shown.append(before)
            self._mark = ARGUMENTS
        elif self._mark == ARGUMENTS:
            deltas.append(ToolCallDelta(0, id=self._draw_id(), name=before))
            self._mark = CALL_END
        else:
            if before:
                deltas.append(ToolCallDelta(0, before))
            self._mark = ""

    def _hold(self, shown: list[str], deltas: list[ToolCallDelta], *, is_last: bool) -> None:
        if self._mark == ARGUMENTS:
            return
        undecided = num_undecided(self._held, (self._mark,))
        if is_last and (self._mark == CALL_BEGIN or undecided == 1):
            undecided = 0  # a brace alone may be the arguments' own
        certain = len(self._held) - undecided
        text, self._held = self._held[:certain], self._held[certain:]
        if self._mark == CALL_BEGIN:
            shown.append(text)
        elif text:
            deltas.append(ToolCallDelta(0, text))
