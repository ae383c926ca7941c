"""What the synthetic engine says: tokens, replies, made-up probabilities and vectors."""

import hashlib
import math
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from random import Random
from zlib import crc32

from servemu_engine.base import TokenLogprob

_PIECE = re.compile(r"\s{0,8}(?:\w{1,8}|[^\w\s])|\s{1,8}")
LONGEST_PIECE = 16
"""Characters of the longest token."""
_WORD = re.compile(r"\w+")
_SLOT = re.compile(r" \{(\w+)\}")

_Part = tuple[str, ...] | str
"""Tokens as they are, or the name of a slot."""

_DULL_WORDS = (
    "a about an and are as at be been but by can could do does for from give has have how i if in "
    "into is it its me my no not of on or our please say should so some tell than that the their "
    "them then there these this to us was we what when where which who why will with would write "
    "you your"
)
_NOUNS = (
    "answer system model question reason pattern record signal table window budget queue result "
    "source change measure garden river market story machine language method detail"
)
_VERBS = (
    "changes explains supports follows limits carries shapes improves describes replaces protects "
    "connects balances reveals repeats"
)
_ADJECTIVES = (
    "simple careful useful common steady small large clear early quiet practical reliable ordinary "
    "surprising familiar"
)
_DULL = frozenset(_DULL_WORDS.split())
_WORDS = {
    "noun": _NOUNS.split(),
    "verb": _VERBS.split(),
    "adjective": _ADJECTIVES.split(),
}
_OPENINGS = (
    "Here is what matters about {topic}.",
    "Let us look at {topic}.",
    "You asked about {topic}, so here is a short answer.",
    "In short, {topic} comes down to a few points.",
    "There are several ways to think about {topic}.",
)
_SENTENCES = (
    "The {adjective} part of {topic} is the {noun}, which {verb} the {noun} step by step.",
    "First, the {noun} {verb} a {adjective} {noun}.",
    "In practice, most people start with the {noun} and keep the {noun} {adjective}.",
    "A {adjective} {noun} often {verb} more than it seems at first.",
    "When the {noun} grows, the {adjective} {noun} {verb} it, so nothing is lost.",
    "It helps to compare {topic} with a {adjective} {noun}.",
    "This {verb} the {noun}, and the rest follows from it.",
    "For example, one {noun} can be {adjective} while another {verb} the {noun}.",
    "Because of that, {topic} is rarely as {adjective} as the {noun} suggests.",
    "Also, check that the {noun} still {verb} the {noun} you wanted.",
)
_ALTERNATIVES = tuple(" " + word for words in _WORDS.values() for word in words)


def pieces(text: str) -> list[str]:
    """Split text into tokens; joined again they are the text.

    One token is up to eight letters or digits of a word, or one other character, each with up to
    eight blanks before it; longer runs of blanks are tokens of eight.
    """
    return _PIECE.findall(text)


def _parts(template: str) -> tuple[_Part, ...]:
    """Tokens of the fixed text and names of the slots between; a blank belongs to what follows."""
    fixed_and_slots = _SLOT.split(template)
    return tuple(part if at % 2 else tuple(pieces(part)) for at, part in enumerate(fixed_and_slots))


_OPENING_PARTS = tuple(map(_parts, _OPENINGS))
_SENTENCE_PARTS = tuple(_parts(f" {sentence}") for sentence in _SENTENCES)
_WORD_PIECES = {
    slot: tuple(tuple(pieces(f" {word}")) for word in words) for slot, words in _WORDS.items()
}


def token_id(piece: str) -> int:
    """A number for a token, the same in every process."""
    return crc32(piece.encode("utf-8", "surrogatepass"))


def topic_of(text: str) -> str:
    """Up to four telling words of a question, in its own order and spelling."""
    words = _WORD.findall(text[:2000])
    telling = [w for w in words if w.lower() not in _DULL] or words
    return " ".join(w[:24] for w in telling[:4]) or "this"


def reply(topic: str, rng: Random) -> Iterator[list[str]]:
    """Endless sentences about the topic, each as its tokens."""
    topic_pieces = pieces(f" {topic}")
    yield _fill(_OPENING_PARTS[_below(len(_OPENING_PARTS), rng)], topic_pieces, rng)
    while True:
        for parts in rng.sample(_SENTENCE_PARTS, len(_SENTENCE_PARTS)):
            yield _fill(parts, topic_pieces, rng)


def _fill(parts: tuple[_Part, ...], topic: list[str], rng: Random) -> list[str]:
    filled: list[str] = []
    for part in parts:
        if isinstance(part, tuple):
            filled += part
        elif part == "topic":
            filled += topic
        else:
            words = _WORD_PIECES[part]
            filled += words[_below(len(words), rng)]
    return filled


def _below(limit: int, rng: Random) -> int:
    return int(rng.random() * limit)  # a quarter of what `choice` costs


def made_up_logprob(piece: str, position: int, num_top: int) -> TokenLogprob:
    """The token as the likeliest choice, with `num_top` choices whose chances add up below 1."""
    rng = Random(token_id(piece) + position)
    chance = rng.uniform(0.55, 0.98)
    text, raw = piece, piece.encode("utf-8", "replace")
    if num_top == 0:
        return TokenLogprob(text, raw, math.log(chance))
    others = [w for w in rng.sample(_ALTERNATIVES, num_top) if w != piece][: num_top - 1]
    halves = [(1 - chance) * 0.5**rank for rank in range(1, num_top)]
    likely = zip([piece, *others], [chance, *halves], strict=True)
    top = tuple(TokenLogprob(t, t.encode("utf-8", "replace"), math.log(p)) for t, p in likely)
    return TokenLogprob(text, raw, math.log(chance), top)


def vector(words: Sequence[str], dimensions: int) -> list[float]:
    """A direction for a text, not normalised: texts that share words and letters lie near.

    Signed feature hashing of words and letter triples, plus a trace of noise from the whole text,
    so that no value is exactly zero. The norm is 8 to 12, plainly not 1.
    """
    sums = [0.0] * dimensions
    for word in words:
        for hashed, weight in _features(word.strip().lower()):
            sums[hashed % dimensions] += weight
            sums[(hashed >> 20) % dimensions] += weight if hashed & (1 << 50) else -weight
    noise = hashlib.shake_256("".join(words).encode("utf-8", "surrogatepass")).digest(dimensions)
    values = [s + (byte - 127.5) * 1e-4 for s, byte in zip(sums, noise, strict=True)]
    scale = (8 + noise[0] / 64) / math.hypot(*values)
    return [value * scale for value in values]


@lru_cache(maxsize=20_000)
def _features(word: str) -> tuple[tuple[int, float], ...]:
    weight = 0.2 if word in _DULL or not word.isalnum() else 1.0
    framed = f"<{word}>"
    parts = [(framed, weight)]
    parts += [(framed[i : i + 3], 0.4 * weight) for i in range(len(framed) - 2)]
    return tuple((_hash(part), w if _hash(part) & 1 else -w) for part, w in parts)


def _hash(part: str) -> int:
    digest = hashlib.blake2b(part.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    return int.from_bytes(digest)


def unit(values: Sequence[float]) -> list[float]:
    """The same direction at length 1."""
    norm = math.hypot(*values)
    return [value / norm for value in values]
