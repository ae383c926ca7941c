"""Calls in text: found whatever the pieces, and told to models whose template knows no tools."""

import pytest

from servemu_engine.base import Message, Tool, ToolCall, ToolCallDelta
from servemu_engine.tools import ToolCallText, call_text, spelled_out

CALL = ToolCall("c", "f", '{"a": "}\\n</tool"}')
TEXT = "Well. " + call_text(CALL)


@pytest.mark.parametrize("size", range(1, len(TEXT) + 1, 3))
def test_call_is_found_however_the_text_is_cut(size: int) -> None:
    parser = ToolCallText(lambda: "id-1")
    cut = [TEXT[at : at + size] for at in range(0, len(TEXT), size)]
    spoken = [parser.push(piece, None) for piece in cut] + [parser.push("", "stop")]
    deltas = [delta for one in spoken for delta in one.tool_calls]
    assert "".join(one.text for one in spoken) == "Well. "
    assert deltas[0] == ToolCallDelta(0, id="id-1", name="f")
    assert "".join(delta.arguments for delta in deltas) == CALL.arguments
    assert spoken[-1].finish_reason == "tool_calls"


@pytest.mark.parametrize(
    ("text", "shown", "arguments"),
    [
        ("a <tool_call", "a <tool_call", ""),
        (TEXT[: TEXT.index('a"')], "Well. ", '{"'),
        (TEXT[:-3], "Well. ", CALL.arguments),
        (TEXT[: -len("\n</tool_call>") - 1], "Well. ", CALL.arguments),
    ],
)
def test_call_that_is_cut_short_is_no_call(text: str, shown: str, arguments: str) -> None:
    spoken = ToolCallText().push(text, "length")
    assert (spoken.text, spoken.finish_reason) == (shown, "length")
    assert "".join(delta.arguments for delta in spoken.tool_calls) == arguments


def test_conversation_is_spelled_out_for_a_template_without_tools() -> None:
    system, user, assistant, results = spelled_out(
        (
            Message("system", "Be brief."),
            Message("user", "hi"),
            Message("assistant", "", (CALL,)),
            Message("tool", "1", tool_call_id="c"),
            Message("tool", "2", tool_call_id="d"),
        ),
        (Tool("f", "does f"),),
    )
    assert system.content.startswith("Be brief.\n\n# Tools\n")
    assert '"name": "f", "description": "does f"' in system.content
    assert user == Message("user", "hi")
    assert assistant == Message("assistant", call_text(CALL))
    assert results == Message(
        "user",
        "<tool_response>\n1\n</tool_response>\n<tool_response>\n2\n</tool_response>",
    )


def test_conversation_without_tools_is_left_alone() -> None:
    messages = (Message("system", "s"), Message("user", "u"), Message("assistant", ""))
    assert spelled_out(messages, ()) == messages
