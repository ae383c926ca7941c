"""Tokens to text, one at a time, and when an answer is over: end tokens, stop strings, length."""

import codecs
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from servemu_engine.base import FinishReason, TokenLogprob

Decode = Callable[[Sequence[int]], str]
"""Token ids to text; special tokens give none."""

_REPLACEMENT = "\ufffd"
_LONGEST_CHARACTER = 8
"""Tokens after which half a character is given up as broken; four bytes are the longest."""


class Detokenizer(Protocol):
    """Text of an answer, token by token, never with half a character at the end."""

    def push(self, token: int) -> str:
        """Text that is certain with this token; empty while a character is incomplete."""

    def flush(self) -> str:
        """What `push` still holds, with broken characters replaced."""


class BytesDetokenizer:
    """Of a byte-level vocabulary: the text is the bytes of its tokens, one after the other."""

    def __init__(self, text_bytes: Callable[[int], bytes]) -> None:
        self._text_bytes = text_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token: int) -> str:
        """As in `Detokenizer`."""
        return self._decoder.decode(self._text_bytes(token))

    def flush(self) -> str:
        """As in `Detokenizer`."""
        return self._decoder.decode(b"", final=True)


class WindowDetokenizer:
    """Of any vocabulary: the last tokens decoded with and without the new one.

    The last tokens of the prompt are the context in which the first ones are decoded: some
    tokenizers drop the space in front of a text.
    """

    def __init__(self, decode: Decode, prompt_ids: Sequence[int]) -> None:
        self._decode = decode
        self._ids = list(prompt_ids[-5:])
        self._read = len(self._ids)
        self._known = decode(self._ids)

    def push(self, token: int) -> str:
        """As in `Detokenizer`. Bytes that are no character are shown after eight tokens."""
        self._ids.append(token)
        text = self._decode(self._ids)
        is_incomplete = text.endswith(_REPLACEMENT)
        if is_incomplete and len(self._ids) - self._read < _LONGEST_CHARACTER:
            return ""
        return self._take(text)

    def flush(self) -> str:
        """As in `Detokenizer`."""
        return self._take(self._decode(self._ids))

    def _take(self, text: str) -> str:
        added = text[len(self._known) :]
        self._ids = self._ids[self._read :]
        self._read = len(self._ids)
        self._known = self._decode(self._ids)
        return added


def find_stop(text: str, stops: Sequence[str]) -> int | None:
    """Where the first of `stops` begins in `text`."""
    places = [place for stop in stops if stop and (place := text.find(stop)) >= 0]
    return min(places, default=None)


def stop_at(text: str, place: int, stops: Sequence[str]) -> str:
    """Which of `stops` begins there."""
    return next(stop for stop in stops if stop and text.startswith(stop, place))


def num_undecided(text: str, stops: Sequence[str]) -> int:
    """Length of the longest end of `text` that a stop string may still begin with."""
    longest = max((len(stop) for stop in stops), default=0) - 1
    for length in range(min(longest, len(text)), 0, -1):
        end = text[-length:]
        if any(stop.startswith(end) for stop in stops):
            return length
    return 0


@dataclass(frozen=True, slots=True)
class StopRules:
    """When an answer ends. `max_tokens` counts the end token too."""

    end_ids: frozenset[int]
    stops: tuple[str, ...]
    max_tokens: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Text that can be shown, with the entries of the tokens it completes."""

    text: str
    logprobs: tuple[TokenLogprob, ...]
    finish_reason: FinishReason | None


class AnswerText:
    """The visible text of one answer. Text that may become a stop string is held back.

    A token's log-probability is shown with the text that completes it; tokens that end the answer
    or lie wholly behind a stop have none.
    """

    def __init__(self, detokenizer: Detokenizer, rules: StopRules) -> None:
        self._detokenizer = detokenizer
        self._rules = rules
        self.stopped_by = ""
        """The stop string that ended it."""
        self._num_tokens = 0
        self._held = ""
        self._shown = 0
        self._decoded = 0
        self._entries: deque[tuple[int, int, TokenLogprob]] = deque()
        """(begin, end, entry) in characters of the whole answer; end grows until decoded."""

    def push(self, token: int, logprob: TokenLogprob | None) -> Piece:
        """Take the next token; `finish_reason` is set when it is the last."""
        self._num_tokens += 1
        if token in self._rules.end_ids:
            return self._end("stop", self._detokenizer.flush())
        added = self._detokenizer.push(token)
        is_last = self._num_tokens >= self._rules.max_tokens
        if is_last:
            added += self._detokenizer.flush()
        begin = self._decoded
        self._held += added
        self._decoded += len(added)
        if logprob is not None:
            self._entries.append((begin, self._decoded if added else begin + 1, logprob))
        stop = find_stop(self._held, self._rules.stops)
        if stop is not None:
            self.stopped_by = stop_at(self._held, stop, self._rules.stops)
            self._held = self._held[:stop]
            return self._end("stop")
        if is_last:
            return self._end("length")
        return self._show(len(self._held) - num_undecided(self._held, self._rules.stops))

    def _end(self, reason: FinishReason, rest: str = "") -> Piece:
        self._held += rest
        stop = find_stop(self._held, self._rules.stops)
        if stop is not None:
            self.stopped_by = stop_at(self._held, stop, self._rules.stops)
        text = self._held if stop is None else self._held[:stop]
        end = self._shown + len(text)
        was_cut = reason == "stop" and self._decoded + len(rest) > end
        entries = [entry for begin, _, entry in self._entries if begin < end or not was_cut]
        return Piece(text, tuple(entries), reason)

    def _show(self, length: int) -> Piece:
        text, self._held = self._held[:length], self._held[length:]
        self._shown += length
        entries = []
        while self._entries and self._entries[0][1] <= self._shown:
            entries.append(self._entries.popleft()[2])
        return Piece(text, tuple(entries), None)


class StopCut:
    """Lets text through up to the first stop string, holding back what may be the start of one."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._stop = tuple(filter(None, stop))
        self.held = ""
        self.found = ""
        """The stop string that was met."""

    def push(self, piece: str) -> str:
        if not self._stop:
            return piece
        text = self.held + piece
        self.held = ""
        start = find_stop(text, self._stop)
        if start is not None:
            self.found = stop_at(text, start, self._stop)
            return text[:start]
        certain = len(text) - num_undecided(text, self._stop)
        self.held = text[certain:]
        return text[:certain]
