"""Requests to token ids, through the chat template of the model."""

from jinja2 import TemplateError
from transformers import PreTrainedTokenizerBase

from servemu_engine.base import GenerateRequest, Message
from servemu_engine.errors import InvalidPrompt


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
    if not tokenizer.chat_template:
        return _encode(tokenizer, _as_lines(messages), add_special_tokens=True)
    return _encode(tokenizer, _rendered(tokenizer, messages), add_special_tokens=False)


def _rendered(tokenizer: PreTrainedTokenizerBase, messages: tuple[Message, ...]) -> str:
    turns = [{"role": message.role, "content": message.content} for message in messages]
    try:
        return str(tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))
    except (TemplateError, TypeError) as error:
        raise InvalidPrompt(f"the chat template refused the messages: {error}") from error


def _as_lines(messages: tuple[Message, ...]) -> str:
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
