"""The border of the engine: frozen data for what is asked and answered, and two protocols."""

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

FinishReason = Literal["stop", "length", "tool_calls"]
Role = Literal["system", "user", "assistant", "tool"]
JsonSchema = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call that the model made, whole."""

    id: str
    name: str
    arguments: str
    """JSON text."""


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    """Of an assistant's turn."""
    tool_call_id: str = ""
    """Of a tool's turn: the call it answers."""


@dataclass(frozen=True, slots=True)
class Tool:
    """A function the model may call."""

    name: str
    description: str = ""
    parameters: JsonSchema = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ToolUse:
    """Which tools there are, and whether one must be called."""

    tools: tuple[Tool, ...]
    choice: Literal["none", "auto", "required"] = "auto"
    name: str = ""
    """With `required`: the only one that may be called; empty: any."""


@dataclass(frozen=True, slots=True)
class JsonAnswer:
    """The answer is JSON: any object, or what the schema admits."""

    schema: JsonSchema | None = None


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen, and when to stop. One per request, never shared."""

    max_tokens: int | None = None
    """Most tokens to generate; None: until the context ends."""
    temperature: float = 1.0
    """0 is greedy."""
    top_p: float = 1.0
    top_k: int | None = None
    stop: tuple[str, ...] = ()
    """Generation ends before the first of these strings; the string itself is not returned."""
    logprobs: bool = False
    top_logprobs: int = 0
    """Alternatives reported for each token, 0 to 20; only with `logprobs`."""
    seed: int | None = None
    """Same seed, same prompt, same engine: same text. None: a fresh draw."""


@dataclass(frozen=True, slots=True)
class GenerateRequest:
    """Text to continue. Exactly one of `messages` (a chat) and `prompt` (plain text) is given."""

    messages: tuple[Message, ...] = ()
    prompt: str = ""
    use_chat_template: bool = True
    """False: `prompt` goes to the model as it is (`use_raw_prompt` on the wire)."""
    sampling: Sampling = field(default_factory=Sampling)
    n: int = 1
    context_length: int | None = None
    """Tokens of prompt and answer that the *played* model takes; None: the engine's own."""
    tool_use: ToolUse | None = None
    json_answer: JsonAnswer | None = None


@dataclass(frozen=True, slots=True)
class PreparedRequest:
    """A request whose prompt has been counted: what a token budget needs before anything runs."""

    request: GenerateRequest
    token_ids: tuple[int, ...]
    """What the model will see: the newest part only, when a stand-in's window is shorter."""
    num_prompt_tokens: int
    """The whole prompt, as it is billed."""
    max_tokens: int
    """Most tokens each of the `n` answers may have, from the request and the context."""


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """A token and its natural-log probability. `text` may hold part of a character, not `raw`."""

    text: str
    raw: bytes
    logprob: float
    top: tuple["TokenLogprob", ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCallDelta:
    """Some more of tool call `index` of an answer; id and name come with its first delta only."""

    index: int
    arguments: str = ""
    id: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Some more text of answer `index` (0 to n - 1)."""

    index: int
    text: str
    num_tokens: int
    """Tokens generated since the last chunk, also those whose text is held back or cut off."""
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None
    """Set on the last chunk of each answer."""
    tool_calls: tuple[ToolCallDelta, ...] = ()
    stop_string: str = ""
    """With the finish reason: the one of the request's stop strings that ended the answer."""
    num_prompt_tokens: int | None = None
    """The whole prompt's tokens, where `prepare` could only estimate them (a remote engine)."""


class Generation(Protocol):
    """A running answer. Iterate to the end, or leave the `async with` early to cancel.

    Taking a chunk is what allows the engine to go on: an answer whose reader stands still is
    paused after a bounded number of tokens. A failure after the first token is raised here.
    """

    def __aiter__(self) -> AsyncIterator[Chunk]: ...

    async def __aenter__(self) -> "Generation": ...

    async def __aexit__(self, *exc_info: object) -> None: ...


@dataclass(frozen=True, slots=True)
class EmbedRequest:
    """Texts to turn into vectors, and the properties of the model that is played."""

    texts: tuple[str, ...]
    dimensions: int | None = None
    """Length of each vector; None: the model's own. Longer ones by a fixed random projection."""
    normalize: bool = False
    """True: unit length (BGE). False: as pooled (GTE v1.5)."""
    context_length: int | None = None


@dataclass(frozen=True, slots=True)
class PreparedEmbedRequest:
    """Texts that have been cut to the context and counted."""

    request: EmbedRequest
    token_ids: tuple[tuple[int, ...], ...]
    num_prompt_tokens: int


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What `servemu models` shows of a loaded engine."""

    name: str
    kind: Literal["local", "synthetic", "remote"]
    architecture: str
    dtype: str
    device: str
    context_length: int
    num_parameters: int
    num_bytes: int
    load_seconds: float
    runner: str = ""
    """Of a local text generator: compiled or transformers (`runners`)."""


class Engine(Protocol):
    """Generates text. `start` and `close` block; the rest belongs to one event loop."""

    @property
    def info(self) -> EngineInfo: ...

    def start(self) -> None:
        """Load the weights and start the loop. Raises `LoadFailed`."""

    def close(self) -> None:
        """Fail what runs with `EngineClosed` and free the memory. May be called twice."""

    def prepare(self, request: GenerateRequest) -> PreparedRequest:
        """Tokenise and check. Raises `PromptTooLong`, `InvalidPrompt`."""

    def submit(self, prepared: PreparedRequest) -> Generation:
        """Queue it. Raises `EngineDead`, `EngineClosed` here or never."""


class Embedder(Protocol):
    """Turns texts into vectors. `start` and `close` block; the rest belongs to one event loop."""

    @property
    def info(self) -> EngineInfo: ...

    def start(self) -> None:
        """Load the weights. Raises `LoadFailed`."""

    def close(self) -> None:
        """Free the memory. May be called twice."""

    def prepare_embed(self, request: EmbedRequest) -> PreparedEmbedRequest:
        """Tokenise, and cut each text to the context. Raises `InvalidPrompt`."""

    async def embed(self, prepared: PreparedEmbedRequest) -> Sequence[Sequence[float]]:
        """Vectors, one a text, in order. Raises `EngineDead`, `EngineClosed`."""
