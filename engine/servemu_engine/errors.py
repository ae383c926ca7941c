"""What can go wrong in an engine.

EngineError
├── LoadFailed        the weights are missing, broken, or do not fit
├── RequestRefused    this request, before it ran; others go on
│   ├── PromptTooLong
│   ├── InvalidPrompt
│   └── InvalidSampling
├── RemoteFailed      this request, by the remote server; others may go on
│   └── RemoteOverloaded
├── AnswerFailed      this request, while it ran; others go on
└── EngineStopped     this request and all others
    ├── EngineDead    the device step failed
    └── EngineClosed  close() was called
"""


class EngineError(Exception):
    """Base of all that an engine raises."""


class LoadFailed(EngineError):
    """The model cannot be brought up. The message names the model and the reason."""


class RequestRefused(EngineError):
    """One request was refused before it ran."""


class PromptTooLong(RequestRefused):
    """The prompt leaves no room for an answer."""

    def __init__(self, num_tokens: int, limit: int) -> None:
        super().__init__(f"prompt token count ({num_tokens}) exceeds the context of {limit} tokens")
        self.num_tokens = num_tokens
        self.limit = limit


class InvalidPrompt(RequestRefused):
    """The chat template or the tokenizer refused the prompt."""


class InvalidSampling(RequestRefused):
    """A number of the sampling is none, or outside of what it can be."""


class RemoteFailed(EngineError):
    """The remote server failed one request. The message is its own, with its status."""


class RemoteOverloaded(RemoteFailed):
    """The remote server takes no more now (429)."""

    def __init__(self, message: str, retry_after: int | None) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        """Whole seconds; None: it did not say."""


class AnswerFailed(EngineError):
    """One answer cannot go on: no numbers from the model, or its text or grammar broke."""


class EngineStopped(EngineError):
    """The engine no longer runs; everything on it failed."""


class EngineDead(EngineStopped):
    """The device step raised; the original error is the `__cause__`."""


class EngineClosed(EngineStopped):
    """The engine was closed while the request ran, or before."""
