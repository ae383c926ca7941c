"""Requests to token ids, through the chat template of the model."""

import json
from collections.abc import Sequence

from jinja2 import TemplateError
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from servemu_engine.base import GenerateRequest, Message, Tool, ToolCall
from servemu_engine.errors import InvalidPrompt
from servemu_engine.tools import TAG, definition, spelled_out, usable

_ANOTHER_FORM = "<function="
"""Qwen3-Coder and Qwen3.5 write the call within the tags as XML."""


def encode_request(tokenizer: PreTrainedTokenizerBase, request: GenerateRequest) -> list[int]:
    """Token ids of the whole prompt, at least one. Raises `InvalidPrompt`.

    A `prompt` is put into the template as one user message unless `use_chat_template` is False
    (`use_raw_prompt`, facts/data_plane §2.2). A model without a template, as base models are, gets
    a prompt as it is and messages as lines of `role: content`.
    """
    if request.messages:
        messages = request.messages
    elif request.use_chat_template and tokenizer.chat_template:
        messages = (Message("user", request.prompt),)
    else:
        return _encode(tokenizer, request.prompt, add_special_tokens=True)
    tools = usable(request.tool_use)
    if not tokenizer.chat_template:
        lines = _as_lines(spelled_out(messages, tools))
        return _encode(tokenizer, lines, add_special_tokens=True)
    return _encode(tokenizer, _prompt(tokenizer, messages, tools), add_special_tokens=False)


def _prompt(
    tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...], tools: Sequence[Tool]
) -> str:
    """By the template itself where it writes calls as `tools` does; else calls and results as text.

    Templates with no tools (SmolLM2) or calls of another form (Llama 3, Mistral) get the text.
    """
    if not tools and not any(message.tool_calls or message.tool_call_id for message in messages):
        return _rendered(tokenizer, messages)
    if TAG in str(tokenizer.chat_template) and _ANOTHER_FORM not in str(tokenizer.chat_template):
        return _rendered(tokenizer, messages, tools)
    return _rendered(tokenizer, spelled_out(messages, tools))


def num_characters(request: GenerateRequest) -> int:
    """Of the prompt or the messages, without what a template adds."""
    return len(request.prompt) + sum(len(message.content) for message in request.messages)


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: Sequence[Message], tools: Sequence[Tool] = ()
) -> str:
    try:
        return str(
            tokenizer.apply_chat_template(
                [_turn(message) for message in messages],
                tools=[definition(tool) for tool in tools] or None,
                tokenize=False,
                add_generation_prompt=True,
            )
        )
    except (TemplateError, TypeError) as error:
        raise InvalidPrompt(f"the chat template refused the messages: {error}") from error


def _turn(message: Message) -> dict[str, object]:
    turn: dict[str, object] = {"role": message.role, "content": message.content}
    if message.tool_calls:
        turn["tool_calls"] = [_call(call) for call in message.tool_calls]
    if message.tool_call_id:
        turn["tool_call_id"] = message.tool_call_id
    return turn


def _call(call: ToolCall) -> dict[str, object]:
    """Templates want the arguments as an object; text that is none stays text."""
    try:
        arguments: object = json.loads(call.arguments or "{}")
    except ValueError:
        arguments = call.arguments
    function = {"name": call.name, "arguments": arguments}
    return {"id": call.id, "type": "function", "function": function}


def _as_lines(messages: Sequence[Message]) -> str:
    lines = [f"{message.role}: {message.content}" for message in messages]
    return "\n".join([*lines, "assistant:"])


def _encode(
    tokenizer: PreTrainedTokenizerBase, text: str, *, add_special_tokens: bool
) -> list[int]:
    try:
        # verbose: whether the prompt is too long is decided, and said, elsewhere
        ids = tokenizer.encode(text, add_special_tokens=add_special_tokens, verbose=False)
    except (TypeError, ValueError, UnicodeError) as error:
        raise InvalidPrompt(f"the tokenizer refused the prompt: {error}") from error
    first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
    if not ids and first is not None:
        return [first]
    if not ids:
        raise InvalidPrompt("the prompt is empty")
    return list(ids)
