"""One answer while it is generated: its tokens, what the cache holds of them, what was read."""

from dataclasses import dataclass, field
from typing import Protocol

from servemu_engine.base import Sampling


class Constraint(Protocol):
    """What the tokens of one answer may be (`grammar.GrammarState`)."""

    def allowed(self) -> bytes:
        """One bit a token, the lowest first."""

    def take(self, token: int) -> None:
        """The token that came. Raises `AnswerFailed` where it cannot go on."""


@dataclass(slots=True, eq=False)
class Sequence:
    """Written by the engine thread only. `index`: the place among the `n` of a request."""

    prompt_ids: tuple[int, ...]
    sampling: Sampling
    seed: int
    index: int = 0
    run_ahead: int = 32
    """Most tokens generated beyond what the reader took; then the sequence is paused."""
    constraint: Constraint | None = None
    """None: any token."""
    tokens: list[int] = field(init=False)
    """Prompt and answer."""
    num_cached: int = field(init=False, default=0)
    """Leading `tokens` whose keys and values are in `slot`."""
    slot: int | None = field(init=False, default=None)
    num_taken: int = field(init=False, default=0)
    """Generated tokens the reader has taken."""
    block_keys: list[int] = field(init=False, default_factory=list)
    """Of leading `tokens`, for `prefixes`."""

    def __post_init__(self) -> None:
        self.tokens = list(self.prompt_ids)

    @property
    def num_generated(self) -> int:
        return len(self.tokens) - len(self.prompt_ids)

    @property
    def num_pending(self) -> int:
        """Tokens the model has to see before it can name the next: 1 while decoding."""
        return len(self.tokens) - self.num_cached

    @property
    def is_paused(self) -> bool:
        return self.num_generated - self.num_taken >= self.run_ahead

    @property
    def may_resume(self) -> bool:
        """Whether a slot is worth running it again in: its reader has taken half of the lead."""
        return 2 * (self.num_generated - self.num_taken) <= self.run_ahead

    def evict(self) -> None:
        """Forget the cached part; the tokens stay and are prefilled again later."""
        self.slot = None
        self.num_cached = 0
