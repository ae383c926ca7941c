"""Which tokens may come next: grammars of JSON answers and tool calls over a model's vocabulary.

llguidance walks the vocabulary; grammars are compiled once and kept.
"""

import json
import threading
from dataclasses import dataclass
from functools import lru_cache

from llguidance import LLMatcher, LLTokenizer
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from servemu_engine.base import GenerateRequest, JsonSchema, Tool
from servemu_engine.errors import AnswerFailed, InvalidPrompt
from servemu_engine.json_schema import ANY_OBJECT, DEFAULT_BOUNDS, Bounds, finite
from servemu_engine.tools import ARGUMENTS, CALL_BEGIN, CALL_END, TAG, usable

_KEPT = 64
"""Compiled grammars that are kept; each takes a few hundred kB at most."""
_LAYOUT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""One blank after a comma and a colon, none elsewhere: no model can fill an answer with blanks."""


def lark_of(request: GenerateRequest, bounds: Bounds = DEFAULT_BOUNDS) -> str | None:
    """The grammar of the answers to a request, as text; None: any text. Raises `InvalidPrompt`."""
    tools = usable(request.tool_use)
    rules = []
    if request.json_answer is not None:
        rules.append(f"json: {_json(request.json_answer.schema or ANY_OBJECT, bounds)}")
    if not tools:
        return _lark(["start: json", *rules]) if rules else None
    rules += [f"call: {' | '.join(f'call_{i}' for i in range(len(tools)))}"]
    for number, tool in enumerate(tools):
        rules += _call_rules(number, tool, bounds)
    assert request.tool_use is not None
    begin = json.dumps(CALL_BEGIN)
    if request.tool_use.choice == "required":
        return _lark([f"start: {begin} call", *rules])
    if request.json_answer is not None:
        return _lark([f"start: json | {begin} call", *rules])
    rest = json.dumps(CALL_BEGIN.removeprefix(TAG))
    lead = [
        f"start: TEXT | lead {rest} call",
        f"lead[lazy]: /(.|\\n)*{TAG}/",
        f"TEXT: /(.|\\n)*/ & ~/(.|\\n)*{TAG}(.|\\n)*/",
    ]
    return _lark([*lead, *rules])


def _call_rules(number: int, tool: Tool, bounds: Bounds) -> list[str]:
    opening, closing = json.dumps(tool.name + ARGUMENTS), json.dumps(CALL_END)
    parameters = {"additionalProperties": False, **tool.parameters, "type": "object"}
    return [
        f"call_{number}: {opening} arguments_{number} {closing}",
        f"arguments_{number}: {_json(parameters, bounds)}",
    ]


def _json(schema: JsonSchema, bounds: Bounds) -> str:
    return "%json " + json.dumps({**finite(schema, bounds), "x-guidance": _LAYOUT})


def _lark(rules: list[str]) -> str:
    return "\n".join(["%llguidance {}", *rules])


@dataclass(slots=True)
class GrammarState:
    """Where one answer is in its grammar. Belongs to the engine's thread."""

    _matcher: LLMatcher

    def allowed(self) -> bytes:
        """One bit a token, the lowest first. The end tokens are in it when the answer is whole."""
        return self._matcher.compute_bitmask()

    def take(self, token: int) -> None:
        """The token that came. Raises `AnswerFailed` where the grammar has become too much for
        llguidance: it then admits the end alone, wherever the answer is."""
        self._matcher.consume_token(token)
        if self._matcher.is_error():
            raise AnswerFailed(f"its grammar broke: {self._matcher.get_error().splitlines()[0]}")


class Grammars:
    """The compiled grammars of one engine; safe from several threads.

    `vocab_size`: of the logits. The first use reads the vocabulary (0.4 s for 49,152 tokens), each
    new grammar takes 1 to 30 ms: not for the event loop.
    """

    def __init__(
        self, tokenizer: PreTrainedTokenizerBase, vocab_size: int, end_ids: frozenset[int]
    ) -> None:
        self._tokenizer = tokenizer
        self._vocab_size = vocab_size
        self._end_ids = sorted(id for id in end_ids if id < vocab_size)
        self._read: LLTokenizer | None = None
        self._lock = threading.Lock()
        self._compiled = lru_cache(maxsize=_KEPT)(self._compile)

    def state_for(self, request: GenerateRequest) -> GrammarState | None:
        """A fresh state, None for a free answer. Raises `InvalidPrompt`."""
        lark = lark_of(request)
        return None if lark is None else GrammarState(self._compiled(lark).deep_copy())

    def _compile(self, lark: str) -> LLMatcher:
        matcher = LLMatcher(self._vocabulary(), lark, log_level=0)
        if matcher.is_error():
            reason = matcher.get_error().splitlines()[0]
            raise InvalidPrompt(f"Invalid JSON schema - {reason}")
        return matcher

    def _vocabulary(self) -> LLTokenizer:
        with self._lock:
            if self._read is None:
                backend = getattr(self._tokenizer, "backend_tokenizer", None)
                if backend is None:
                    raise InvalidPrompt("this model's tokenizer cannot be constrained to a grammar")
                # A mask may be longer than the logits: the sampler looks at theirs only.
                n_vocab = max(self._vocab_size, len(self._tokenizer))
                self._read = LLTokenizer(
                    backend.to_str(), n_vocab=n_vocab, eos_token=list(self._end_ids)
                )
            return self._read
