"""What the data plane answers, described (facts/data_plane §3). Nothing is parsed with these."""

from typing import Literal

from pydantic import BaseModel, ConfigDict, JsonValue

FinishReason = Literal["stop", "length", "tool_calls"]


class Described(BaseModel):
    """A JSON object; more fields may follow."""

    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class Usage(Described):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class TopLogprob(Described):
    token: str
    logprob: float
    bytes: list[int] | None = None


class TokenLogprob(TopLogprob):
    top_logprobs: list[TopLogprob]


class Logprobs(Described):
    content: list[TokenLogprob]


class CalledFunction(Described):
    name: str
    arguments: str
    """JSON."""


class ToolCall(Described):
    id: str
    type: Literal["function"]
    function: CalledFunction


class AssistantMessage(Described):
    role: Literal["assistant"]
    content: str | list[dict[str, object]] | None
    """A list where the family reasons."""
    tool_calls: list[ToolCall] | None = None


class ChatChoice(Described):
    index: int
    message: AssistantMessage
    finish_reason: FinishReason
    logprobs: Logprobs | None


class ChatAnswer(Described):
    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    choices: list[ChatChoice]
    usage: Usage


class CompletionChoice(Described):
    index: int
    text: str
    finish_reason: FinishReason
    logprobs: None


class CompletionsAnswer(Described):
    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    choices: list[CompletionChoice]
    usage: Usage


class Embedding(Described):
    index: int
    object: Literal["embedding"]
    embedding: list[float] | str
    """A string: little-endian float32 in base64."""


class EmbeddingsUsage(Described):
    prompt_tokens: int
    total_tokens: int


class EmbeddingsAnswer(Described):
    object: Literal["list"]
    model: str
    data: list[Embedding]
    usage: EmbeddingsUsage


class ResponsesUsage(Described):
    input_tokens: int
    output_tokens: int
    total_tokens: int


class ResponsesAnswer(Described):
    id: str
    object: Literal["response"]
    created_at: int
    status: Literal["completed", "incomplete"]
    model: str
    output: list[dict[str, JsonValue]]
    usage: ResponsesUsage


class MessagesUsage(Described):
    input_tokens: int
    output_tokens: int


class MessagesAnswer(Described):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    model: str
    content: list[dict[str, JsonValue]]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"]
    stop_sequence: str | None
    usage: MessagesUsage


class PredictionsAnswer(Described):
    predictions: JsonValue
    """One for each row."""


class Error(Described):
    """Any failure (facts/control_plane §4, facts/data_plane §5)."""

    error_code: str | int
    message: str
    details: list[dict[str, object]] | None = None
