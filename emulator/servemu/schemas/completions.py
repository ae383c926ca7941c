"""`llm/v1/completions`: the request (facts/data_plane §2.2), and its answer (§3.4).

Texts of refusals are a GUESS.
"""

from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from servemu.schemas.answers import Choice, Shape, shown_logprob
from servemu.schemas.decoding import refuse
from servemu.schemas.sampling import GenerationFields, Strings
from servemu_engine.base import GenerateRequest

MAX_PROMPTS = 1024
"""Ours: all of them run at once. No limit of the service is known."""


class CompletionsRequest(GenerationFields):
    """Body of a completions call."""

    prompt: Strings
    suffix: str = ""
    echo: bool = False
    use_raw_prompt: bool = False
    logprobs: int | None = Field(None, ge=0, le=5)
    """Alternatives of each token. Not listed by the docs: field and range are OpenAI's (GUESS)."""
    error_behavior: Literal["error", "truncate"] = "error"
    """truncate: as many tokens as possible when the time or the context is over. The docs have it
    for pay-per-token only; here every endpoint takes it."""

    def generate_requests(self, context_length: int) -> tuple[GenerateRequest, ...]:
        """What the engine is asked, one for each prompt. Raises `BadRequest`."""
        if not self.prompt or "" in self.prompt:
            raise refuse("prompt must be a non-empty string or list of such strings")
        if len(self.prompt) > MAX_PROMPTS:
            raise refuse(f"prompt must have at most {MAX_PROMPTS} items")
        if self.stream and self.n > 1 and len(self.prompt) > 1:
            # Both texts of a prompt would carry its index: nobody could tell them apart (GUESS).
            raise refuse("n must be 1 when several prompts are streamed")
        sampling = self.sampling(
            logprobs=self.logprobs is not None, top_logprobs=self.logprobs or 0
        )
        return tuple(
            GenerateRequest(
                prompt=prompt,
                use_chat_template=not self.use_raw_prompt,
                sampling=sampling,
                n=self.n,
                context_length=context_length,
            )
            for prompt in self.prompt
        )

    def check_context(self, prompt_tokens: Sequence[int], limit: int) -> None:
        """An answer that cannot fit is an error by default. Raises `BadRequest`, text GUESS."""
        asked = self.max_tokens or 0
        longest = max(prompt_tokens)
        if self.error_behavior == "error" and longest + asked > limit:
            raise refuse(
                f"prompt token count ({longest}) plus max_tokens ({asked}) cannot exceed {limit}"
            )


def _choice(index: int, choice: Choice) -> dict[str, object]:
    return _item(index, "".join(choice.parts), choice)


def _delta(index: int, choice: Choice, text: str) -> dict[str, object]:
    return _item(index, text, choice)


def _item(index: int, text: str, choice: Choice) -> dict[str, object]:
    return {
        "index": index,
        "text": text,
        "finish_reason": choice.finish_reason,
        "logprobs": _logprobs(choice) if choice.logprobs else None,
    }


def _logprobs(choice: Choice) -> dict[str, object]:
    """OpenAI's legacy form (GUESS, facts/data_plane §3.3). Offsets count from the start of the
    text, where an echo may stand; its tokens have no entries (GUESS).
    """
    tokens = choice.logprobs
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [shown_logprob(token) for token in tokens],
        "top_logprobs": [
            {one.text: shown_logprob(one) for one in (*token.top, token)} for token in tokens
        ],
        "text_offset": [choice.next_offset(token) for token in tokens],
    }


COMPLETIONS = Shape("cmpl_", "text_completion", "text_completion", _choice, _delta)
"""The id's prefix and the object name in a stream are GUESSES."""
