"""Bodies that are refused, and the exact words of the refusal."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from servemu.errors import BadRequest, MalformedRequest
from servemu.schemas.chat import ChatRequest
from servemu.schemas.completions import CompletionsRequest
from servemu.schemas.decoding import decode, parse
from servemu.schemas.embeddings import EmbeddingsRequest
from servemu.schemas.messages import MessagesRequest
from servemu.schemas.responses import ResponsesRequest
from servemu_engine.base import GenerateRequest, Message, Sampling

USER: dict[str, Any] = {"role": "user", "content": "hi"}


def _chat(**fields: Any) -> GenerateRequest:
    body = fields if "messages" in fields else {"messages": [USER], **fields}
    return decode(ChatRequest, body).generate_request(1000)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"{} x",
        b'{"temperature": NaN}',
        b'{"temperature": Infinity}',
        b"\xff",
        b'{"a": "\\ud800"}',
        b"[" * 5000,
    ],
)
def test_body_that_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        parse(body)


def test_body_that_is_no_object_is_refused() -> None:
    with pytest.raises(BadRequest, match="cannot unmarshal array into Go value"):
        parse(b"[]")


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"seed": 1}, 'json: unknown field "seed"'),
        ({"zz": 1, "seed": 1}, 'json: unknown field "zz"'),
        ({"seed": None}, 'json: unknown field "seed"'),
        ({"stream_options": {}, "temperature": "hot"}, 'json: unknown field "stream_options"'),
        (
            {"temperature": "hot", "stream_options": {}},
            "json: cannot unmarshal string into Go struct field ChatRequest.temperature "
            "of type float64",
        ),
        ({"messages": [{**USER, "_x": 1}], "seed": 1}, 'json: unknown field "_x"'),
        ({"seed": 1, "messages": [{**USER, "_x": 1}]}, 'json: unknown field "seed"'),
        ({"temperature": 3, "seed": 1}, 'json: unknown field "seed"'),
        (
            {"max_tokens": 1.5},
            "json: cannot unmarshal number 1.5 into Go struct field ChatRequest.max_tokens "
            "of type int",
        ),
        (
            {"stream": "yes"},
            "json: cannot unmarshal string into Go struct field ChatRequest.stream of type bool",
        ),
        (
            {"messages": [{"role": 1}]},
            "json: cannot unmarshal number into Go struct field ChatRequest.messages.role "
            "of type string",
        ),
        (
            {"stop": [1]},
            "json: cannot unmarshal number into Go struct field ChatRequest.stop of type string",
        ),
        ({"temperature": 2.1}, "temperature must be less than or equal to 2"),
        ({"temperature": -0.1}, "temperature must be greater than or equal to 0"),
        ({"temperature": float("inf")}, "temperature must be less than or equal to 2"),
        ({"top_p": 0}, "top_p must be greater than 0"),
        ({"top_p": 1.1}, "top_p must be less than or equal to 1"),
        ({"top_k": 0}, "top_k must be greater than 0"),
        ({"n": 0}, "n must be greater than or equal to 1"),
        ({"n": 6}, "n must be less than or equal to 5"),
        ({"max_tokens": 0}, "max_tokens must be greater than 0"),
        ({"max_tokens": 10**30}, "max_tokens must be less than or equal to 2147483647"),
        (
            {"logprobs": True, "top_logprobs": 21},
            "top_logprobs must be less than or equal to 20",
        ),
        ({"top_logprobs": 1}, "logprobs must be true when top_logprobs is given"),
        ({"stop": [""]}, "stop must not contain an empty string"),
        ({"stop": ["a"] * 101}, "stop must have at most 100 items"),
        ({"messages": []}, "messages must be a non-empty list"),
        ({"messages": None}, "messages must be given"),
        ({"tools": [{}]}, "tools.0.type must be given"),
        (
            {"response_format": {"type": "json_object"}},
            '"messages" must contain the word "json" in some form, to use "response_format" of '
            'type "json_object".',
        ),
        (
            {"messages": [{"role": "robot", "content": ""}]},
            "messages.0.role must be one of system, user, assistant, tool",
        ),
        (
            {"messages": [USER, {"role": "system", "content": "x"}]},
            "messages.1.role must not be system: a system message comes once and first",
        ),
        (
            {"messages": [USER, {"role": "tool", "content": "x"}]},
            "messages.1.tool_call_id must be given for the role tool",
        ),
        (
            {"messages": [USER, {"role": "tool", "content": "x", "tool_call_id": "c"}]},
            "messages.1 must follow the assistant message with its tool call",
        ),
        ({"messages": [{"role": "user"}]}, "messages.0.content must be given"),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}]},
            "content of type image_url is not supported by this model",
        ),
    ],
)
def test_chat_body_is_refused_with_the_words_of_the_service(
    body: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadRequest) as refused:
        _chat(**body)
    assert refused.value.message == f"Bad request: {message}\n"


def test_chat_body_becomes_what_the_engine_is_asked() -> None:
    content = [{"type": "text", "text": "Hel"}, {"type": "text", "text": "lo"}]
    asked = _chat(
        model="ignored",
        messages=[{"role": "system", "content": "Be brief."}, {"role": "user", "content": content}],
        max_tokens=5,
        temperature=0,
        top_p=0.5,
        top_k=7,
        stop="END",
        n=2,
        logprobs=True,
        top_logprobs=3,
        user="u",
        client_request_id="c",
        usage_context={"team": "x"},
        extra_params={"a": "b"},
        tool_choice="none",
        response_format={"type": "text"},
    )
    assert asked == GenerateRequest(
        messages=(Message("system", "Be brief."), Message("user", "Hello")),
        sampling=Sampling(5, 0.0, 0.5, 7, ("END",), True, 3),
        n=2,
        context_length=1000,
    )


def test_null_means_absent() -> None:
    nothing: dict[str, Any] = dict.fromkeys(
        ["max_tokens", "stream", "temperature", "top_p", "top_k", "stop", "n", "logprobs", "tools"]
    )
    assert _chat(**nothing) == _chat()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({}, "prompt must be given"),
        ({"prompt": []}, "prompt must be a non-empty string or list of such strings"),
        ({"prompt": ["x"] * 1025}, "prompt must have at most 1024 items"),
        ({"prompt": "x", "logprobs": 6}, "logprobs must be less than or equal to 5"),
        ({"prompt": "x", "error_behavior": "x"}, "error_behavior must be 'error' or 'truncate'"),
        (
            {"prompt": ["x", "y"], "n": 2, "stream": True},
            "n must be 1 when several prompts are streamed",
        ),
    ],
)
def test_completions_body_is_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        decode(CompletionsRequest, body).generate_requests(1000)
    assert refused.value.message == f"Bad request: {message}\n"


def test_each_prompt_is_a_request_of_its_own() -> None:
    body = {"prompt": ["a", "b"], "use_raw_prompt": True, "max_tokens": 2}
    assert decode(CompletionsRequest, body).generate_requests(1000) == tuple(
        GenerateRequest(
            prompt=prompt,
            use_chat_template=False,
            sampling=Sampling(max_tokens=2),
            context_length=1000,
        )
        for prompt in ("a", "b")
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"messages": []}, 'json: unknown field "messages"'),
        (
            {"input": [1, 2]},
            "json: cannot unmarshal number into Go struct field EmbeddingsRequest.input "
            "of type string",
        ),
        (
            {"input": [[1, 2]]},
            "json: cannot unmarshal array into Go struct field EmbeddingsRequest.input "
            "of type string",
        ),
        (
            {"input": "x", "encoding_format": "hex"},
            "encoding_format must be 'float' or 'base64'",
        ),
        ({"input": "x", "dimensions": 0}, "dimensions must be greater than 0"),
    ],
)
def test_embeddings_body_is_refused(body: dict[str, Any], message: str) -> None:
    with pytest.raises(BadRequest) as refused:
        decode(EmbeddingsRequest, body)
    assert refused.value.message == f"Bad request: {message}\n"


@pytest.mark.parametrize(
    ("schema", "body"),
    [
        (ChatRequest, {"messages": [1] * 9}),
        (ChatRequest, {"messages": [{"role": "user", "content": [1] * 9}]}),
        (ChatRequest, {"messages": [], "stop": [1] * 9}),
        (ChatRequest, {"messages": [], "usage_context": {f"k{i}": i for i in range(9)}}),
        (ChatRequest, {"messages": [], **{f"k{i}": i for i in range(9)}}),
        (CompletionsRequest, {"prompt": [1] * 9}),
        (EmbeddingsRequest, {"input": [1] * 9}),
        (MessagesRequest, {"model": "m", "max_tokens": 1, "messages": [1] * 9}),
        (ResponsesRequest, {"input": [1] * 9}),
    ],
)
def test_one_wrong_item_is_told_of_however_many_there_are(
    schema: type[BaseModel], body: dict[str, Any]
) -> None:
    """A body of 4 MB holds a million: to tell of them all took half a minute."""
    with pytest.raises(ValidationError) as refused:
        schema.model_validate(body)
    assert refused.value.error_count() == 1


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.sampled_from([10**400, "", "user", "system", "tool", "text", "x" * 50]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["role", "content", "type", "text", "x"]), inner)
    ),
    max_leaves=8,
)


@pytest.mark.parametrize("schema", [ChatRequest, CompletionsRequest, EmbeddingsRequest])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_body_whatever_it_is_fails_otherwise_than_with_a_400(
    schema: type[ChatRequest | CompletionsRequest | EmbeddingsRequest], data: st.DataObject
) -> None:
    fields = st.sampled_from([*schema.model_fields, "unknown"])
    body = data.draw(st.dictionaries(fields, json_values, max_size=4))
    try:
        wanted = decode(schema, body)
        match wanted:
            case ChatRequest():
                wanted.generate_request(1000)
            case CompletionsRequest():
                wanted.generate_requests(1000)
    except BadRequest as refused:
        assert refused.message.startswith("Bad request: ")
        assert refused.message.endswith("\n")
