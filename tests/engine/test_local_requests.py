"""Requests to the local engine before they run: templates, windows, and what is refused."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from tests.generated import answer_of
from tests.tiny_text import GREEDY, WINDOW, Reference, raw
from transformers import PreTrainedTokenizerFast

from servemu_engine.base import GenerateRequest, Message, Sampling
from servemu_engine.chat_template import encode_request
from servemu_engine.errors import InvalidPrompt, PromptTooLong
from servemu_engine.local import LocalEngine

pytestmark = pytest.mark.anyio


async def test_prompt_of_the_whole_context_is_too_long(engine: LocalEngine) -> None:
    request = raw("x y " * 40)
    num_tokens = engine.prepare(request).num_prompt_tokens
    with pytest.raises(PromptTooLong) as raised:
        engine.prepare(replace(request, context_length=num_tokens))
    assert (raised.value.num_tokens, raised.value.limit) == (num_tokens, num_tokens)
    assert engine.prepare(replace(request, context_length=num_tokens + 1)).max_tokens == 1
    with pytest.raises(PromptTooLong, match=f"context of {WINDOW} tokens"):
        engine.prepare(raw("x y " * 800))


async def test_prompt_of_a_million_tokens_is_refused_before_it_is_tokenised(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def encode(*_: object) -> list[int]:
        raise AssertionError("tokenised")

    monkeypatch.setattr("servemu_engine.local.encode_request", encode)
    with pytest.raises(PromptTooLong, match=f"context of {WINDOW} tokens") as raised:
        engine.prepare(raw("word " * 1_000_000))
    assert raised.value.num_tokens > WINDOW


async def test_stand_in_sees_the_newest_tokens_of_a_prompt_beyond_its_window(
    engine: LocalEngine, reference: Reference
) -> None:
    prompt = "one two three " * 400
    ids = reference.tokenizer.encode(prompt)
    prepared = engine.prepare(replace(raw(prompt), context_length=8192))
    assert prepared.num_prompt_tokens == len(ids) > WINDOW
    assert prepared.token_ids == tuple(ids[-(WINDOW - 24) :])
    assert prepared.max_tokens == 24
    assert await answer_of(engine, prepared.request) == reference.text(ids[-(WINDOW - 24) :], 24)


def test_own_window_ends_an_answer_the_played_model_would_go_on_with(engine: LocalEngine) -> None:
    unlimited = replace(raw("a", Sampling()), context_length=8192)
    assert engine.prepare(unlimited).max_tokens == WINDOW - 1


def test_template_error_is_an_invalid_prompt(engine: LocalEngine) -> None:
    with pytest.raises(InvalidPrompt, match="no tools"):
        engine.prepare(GenerateRequest(messages=(Message("tool", "x"),)))


def test_messages_without_a_template_become_lines(
    byte_tokenizer: Callable[..., PreTrainedTokenizerFast],
) -> None:
    tokenizer = byte_tokenizer()
    request = GenerateRequest(messages=(Message("system", "be"), Message("user", "hi")))
    assert (
        tokenizer.decode(encode_request(tokenizer, request)) == "system: be\nuser: hi\nassistant:"
    )
    assert tokenizer.decode(encode_request(tokenizer, GenerateRequest(prompt="hi"))) == "hi"


def test_empty_raw_prompt_is_the_end_token_alone(reference: Reference) -> None:
    ids = encode_request(reference.tokenizer, raw(""))
    assert ids == [reference.tokenizer.eos_token_id]


async def test_chat_goes_through_the_template(engine: LocalEngine, reference: Reference) -> None:
    request = GenerateRequest(messages=(Message("user", "the cat"),), sampling=GREEDY)
    rendered = "<|im_start|>user\nthe cat<|im_end|>\n<|im_start|>assistant\n"
    ids = reference.tokenizer.encode(rendered)
    prepared = engine.prepare(request)
    assert prepared.token_ids == tuple(ids)
    assert engine.prepare(GenerateRequest(prompt="the cat")).token_ids == tuple(ids)
    assert await answer_of(engine, request) == reference.text(ids, 24)
