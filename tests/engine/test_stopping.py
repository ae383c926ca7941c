"""Tokens to text, and the end of an answer. Tokens here are single bytes, so characters split."""

from collections.abc import Sequence

import pytest

from servemu_engine.base import FinishReason, TokenLogprob
from servemu_engine.stopping import (
    AnswerText,
    Piece,
    StopRules,
    WindowDetokenizer,
    find_stop,
    num_undecided,
)

END = 256
Shown = tuple[str, str, FinishReason | None]


def decode(ids: Sequence[int]) -> str:
    """As a byte-level tokenizer does; ids from 256 on are special and give no text."""
    return bytes(id for id in ids if id < END).decode("utf-8", "replace")


def answer(stops: tuple[str, ...] = (), max_tokens: int = 1000) -> AnswerText:
    return AnswerText(
        WindowDetokenizer(decode, b"prompt"), StopRules(frozenset({END}), stops, max_tokens)
    )


def entry(token: int) -> TokenLogprob:
    raw = bytes([token]) if token < END else b"<end>"
    return TokenLogprob(raw.decode("latin-1"), raw, -float(token))


def run(text: AnswerText, tokens: Sequence[int]) -> list[Shown]:
    """Each non-empty piece as (text, texts of its entries joined, finish reason)."""
    pieces = [text.push(token, entry(token)) for token in tokens]
    shown = [(p.text, "".join(e.text for e in p.logprobs), p.finish_reason) for p in pieces]
    return [piece for piece in shown if piece != ("", "", None)]


@pytest.mark.parametrize(
    "text",
    [
        "plain",
        "naïve café",
        "日本語のテキスト",
        "👩‍👩‍👧 family",
        "a\ufffdb",
        " leading",
        "\n\n",
        "x" * 40,
    ],
)
def test_pieces_joined_are_the_whole_text_and_never_half_a_character(text: str) -> None:
    detokenizer = WindowDetokenizer(decode, b"prompt")
    pieces = [detokenizer.push(byte) for byte in text.encode()]
    assert "".join(pieces) == text
    assert all(piece in text for piece in pieces)


def test_broken_bytes_are_shown_after_a_bounded_wait() -> None:
    detokenizer = WindowDetokenizer(decode, b"prompt")
    pieces = [detokenizer.push(0xFF) for _ in range(20)]
    assert "".join(pieces) + detokenizer.flush() == "\ufffd" * 20
    assert any(pieces[:8])


def test_first_token_keeps_its_space_after_the_prompt() -> None:
    def decode_words(ids: Sequence[int]) -> str:
        return "".join((" zero", " one", " two")[id] for id in ids).lstrip()

    detokenizer = WindowDetokenizer(decode_words, [0])
    assert detokenizer.push(1) == " one"


@pytest.mark.parametrize(
    ("text", "stops", "place"),
    [
        ("hello world", ("wor",), 6),
        ("hello", ("z",), None),
        ("abc", ("c", "b"), 1),
        ("abc", (), None),
        ("abc", ("",), None),
    ],
)
def test_stop_is_found_where_it_begins(
    text: str, stops: tuple[str, ...], place: int | None
) -> None:
    assert find_stop(text, stops) == place


@pytest.mark.parametrize(
    ("text", "stops", "length"),
    [
        ("hello <", ("<end>",), 1),
        ("hello <en", ("<end>",), 3),
        ("hello <enx", ("<end>",), 0),
        ("aab", ("aabaab",), 3),
        ("xaa", ("aab", "ab"), 2),
        ("x", (), 0),
    ],
)
def test_end_that_may_become_a_stop_is_undecided(
    text: str, stops: tuple[str, ...], length: int
) -> None:
    assert num_undecided(text, stops) == length


def test_end_token_finishes_with_stop_and_shows_neither_text_nor_logprob() -> None:
    assert run(answer(), [*b"hi", END]) == [
        ("h", "h", None),
        ("i", "i", None),
        ("", "", "stop"),
    ]


def test_length_finishes_with_the_last_token() -> None:
    assert run(answer(max_tokens=2), b"hi") == [("h", "h", None), ("i", "i", "length")]


def test_end_token_as_the_last_allowed_one_is_a_stop() -> None:
    assert run(answer(max_tokens=2), [*b"h", END])[-1] == ("", "", "stop")


def test_stop_string_across_tokens_is_cut_off_with_its_logprobs() -> None:
    assert run(answer(("END",)), b"xEND") == [("x", "x", None), ("", "", "stop")]


def test_text_held_for_a_stop_is_shown_when_it_cannot_become_one() -> None:
    assert run(answer(("END",)), b"ENx") == [("ENx", "ENx", None)]


def test_held_text_is_shown_at_the_end() -> None:
    assert run(answer(("END",)), [*b"EN", END]) == [("EN", "EN", "stop")]
    assert run(answer(("END",), max_tokens=2), b"EN") == [("EN", "EN", "length")]


def test_stop_completed_by_the_last_allowed_token_is_a_stop() -> None:
    assert run(answer(("END",), max_tokens=4), b"xEND")[-1] == ("", "", "stop")


def test_half_a_character_is_shown_as_broken_at_the_end() -> None:
    assert run(answer(), [*"é".encode()[:1], END]) == [("\ufffd", "Ã", "stop")]


def test_logprobs_of_a_split_character_come_with_the_character() -> None:
    assert run(answer(), "é".encode()) == [("é", "Ã©", None)]


def test_token_that_is_partly_before_the_stop_keeps_its_logprob() -> None:
    def decode_words(ids: Sequence[int]) -> str:
        return "".join({1: "ab", 2: "cSTOPd"}[id] for id in ids)

    text = AnswerText(WindowDetokenizer(decode_words, []), StopRules(frozenset(), ("STOP",), 9))
    shown, cut = TokenLogprob("ab", b"ab", -1.0), TokenLogprob("cSTOPd", b"cSTOPd", -2.0)
    assert text.push(1, shown) == Piece("ab", (shown,), None)
    assert text.push(2, cut) == Piece("c", (cut,), "stop")
