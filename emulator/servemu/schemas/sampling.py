"""The request fields that chat and completions share, and the checks on them.

Texts of refusals are a GUESS.
"""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from servemu.errors import BadRequest
from servemu.schemas.decoding import Body, Items, Pairs, PositiveInt, refuse
from servemu.schemas.reasoning import PLAIN, Dialect, refuse_prompt_of
from servemu_engine.base import Sampling
from servemu_engine.errors import RequestRefused

MAX_CHOICES = 5
"""The docs say any n > 0, the SDK's text 1 to 5 (facts/data_plane §2.1)."""
MAX_STOPS = 100
"""Ours: each is looked for at every token. No limit of the service is known."""


def listed(value: Any) -> Any:
    """A string where a list of strings may stand."""
    return [value] if isinstance(value, str) else value


Strings = Annotated[Items[str], BeforeValidator(listed)]


class GenerationFields(Body):
    """Defaults and ranges: facts/data_plane §2.1."""

    model: str = ""
    """The endpoint on the OpenAI paths; ignored on /invocations."""
    max_tokens: PositiveInt | None = None
    stream: bool = False
    """False although the docs say true: every client that wants one body omits it (PROBE)."""
    temperature: float = Field(1.0, ge=0, le=2)
    top_p: float = Field(1.0, gt=0, le=1)
    top_k: PositiveInt | None = None
    stop: Strings = Field(default_factory=list)
    n: int = Field(1, ge=1, le=MAX_CHOICES)
    user: str = ""
    client_request_id: str = ""
    usage_context: Pairs = Field(default_factory=dict)
    extra_params: Pairs = Field(default_factory=dict)
    """databricks-sdk may send it (CODE). What it does is not known: nothing here (GUESS)."""

    def refusal(self, error: RequestRefused, dialect: Dialect = PLAIN) -> BadRequest:
        """A prompt that the engine will not take."""
        return refuse_prompt_of(dialect, error)

    def sampling(self, *, logprobs: bool = False, top_logprobs: int = 0) -> Sampling:
        """What the engine needs of these. Raises `BadRequest`."""
        if "" in self.stop:
            raise refuse("stop must not contain an empty string")
        if len(self.stop) > MAX_STOPS:
            raise refuse(f"stop must have at most {MAX_STOPS} items")
        return Sampling(
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            top_k=self.top_k,
            stop=tuple(self.stop),
            logprobs=logprobs,
            top_logprobs=top_logprobs,
        )
