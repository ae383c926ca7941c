"""Any tokens to text: what is streamed is the whole, in whole characters, up to a stop string."""

from collections.abc import Callable
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers
from transformers import PreTrainedTokenizerFast

from servemu_engine.base import TokenLogprob
from servemu_engine.stopping import AnswerText, Piece, StopRules, WindowDetokenizer
from servemu_engine.vocabulary import Vocabulary

PIECES = (
    "the cat",
    " 日本",
    "語",
    "é",
    "e\u0301",
    "👩‍👩‍👧",
    "🇨🇭",
    "\u202e",
    "ß\n\n",
    "naïve ",
    "\ufffd",
)
TEXTS = st.lists(st.sampled_from(PIECES) | st.text(max_size=4), max_size=12).map("".join)
Texts = st.SearchStrategy[str]


@pytest.fixture(scope="module")
def byte_level(byte_tokenizer: Callable[..., PreTrainedTokenizerFast]) -> PreTrainedTokenizerFast:
    """Merges across the borders of characters, and an added token that is no special one."""
    tokenizer = byte_tokenizer(*PIECES * 9, "日本語日本語 naïve café", vocab_size=330)
    tokenizer.add_tokens(["<tool_call>"])
    return tokenizer


@cache
def byte_fallback() -> PreTrainedTokenizerFast:
    """As of Llama 2: letters, and bytes for all else."""
    names = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcdefghijklmnopqrst"]
    tokenizer = Tokenizer(
        models.BPE({n: i for i, n in enumerate(names)}, [], unk_token="<unk>", byte_fallback=True)
    )
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    )
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


@given(data=st.data())
def test_any_byte_level_tokens_stream_as_they_decode(
    byte_level: PreTrainedTokenizerFast, data: st.DataObject
) -> None:
    ids = data.draw(st.lists(st.integers(0, len(byte_level) - 1), max_size=40))
    ids = ids + byte_level.encode(data.draw(TEXTS))
    detokenizer = Vocabulary(byte_level).detokenizer(())
    pieces = [detokenizer.push(id) for id in ids]
    rest = detokenizer.flush()
    whole = byte_level.decode(ids, skip_special_tokens=True)
    assert "".join(pieces) + rest == whole
    for count in range(len(ids)):  # at most the beginning of one character is held back
        so_far = byte_level.decode(ids[: count + 1], skip_special_tokens=True)
        shown = "".join(pieces[: count + 1])
        assert shown in (so_far, so_far[:-1])
        assert whole.startswith(shown)


@given(text=TEXTS)
def test_text_in_fallback_bytes_streams_as_it_is(text: str) -> None:
    text = text.replace("\ufffd", "")
    vocabulary = Vocabulary(byte_fallback())
    ids = byte_fallback().encode(text, add_special_tokens=False)
    detokenizer = vocabulary.detokenizer(())
    assert isinstance(detokenizer, WindowDetokenizer)
    pieces = [detokenizer.push(id) for id in ids]
    assert "".join(pieces) + detokenizer.flush() == text
    assert not any("\ufffd" in piece for piece in pieces)


def entry(vocabulary: Vocabulary, token: int) -> TokenLogprob:
    raw = vocabulary.token_bytes(token)
    return TokenLogprob(raw.decode("utf-8", "replace"), raw, -1.0)


def answered(
    vocabulary: Vocabulary, ids: list[int], stops: tuple[str, ...]
) -> tuple[list[Piece], int]:
    """The pieces, and how many tokens were taken before the answer was over."""
    rules = StopRules(frozenset(), stops, len(ids))
    text = AnswerText(vocabulary.detokenizer(()), rules)
    pieces: list[Piece] = []
    for id in ids:
        pieces.append(text.push(id, entry(vocabulary, id)))
        if pieces[-1].finish_reason is not None:
            break
    return pieces, len(pieces)


@given(data=st.data())
def test_stop_is_found_across_tokens_as_soon_as_it_is_there(
    byte_level: PreTrainedTokenizerFast, data: st.DataObject
) -> None:
    vocabulary = Vocabulary(byte_level)
    text = data.draw(TEXTS.filter(bool)).replace("\ufffd", "?")
    begin = data.draw(st.integers(0, len(text) - 1))
    stop = text[begin : begin + data.draw(st.integers(1, 6))]
    stops = (stop, data.draw(st.text(min_size=1, max_size=3)))
    ids = byte_level.encode(text)
    texts = [byte_level.decode(ids[: n + 1], skip_special_tokens=True) for n in range(len(ids))]
    needed = next(n for n, so_far in enumerate(texts) if any(s in so_far for s in stops)) + 1
    places = [texts[needed - 1].find(s) for s in stops if s in texts[needed - 1]]

    pieces, taken = answered(vocabulary, ids, stops)
    shown = "".join(piece.text for piece in pieces)
    assert (taken, pieces[-1].finish_reason) == (needed, "stop")
    assert shown == texts[needed - 1][: min(places)]
    assert not any(s in shown for s in stops)


@given(data=st.data())
def test_logprobs_are_those_of_the_shown_tokens_in_order(
    byte_level: PreTrainedTokenizerFast, data: st.DataObject
) -> None:
    vocabulary = Vocabulary(byte_level)
    ids = byte_level.encode(data.draw(TEXTS.filter(bool)))
    stops = tuple(data.draw(st.lists(st.text(min_size=1, max_size=3), max_size=2)))
    pieces, taken = answered(vocabulary, ids, stops)
    entries = [one for piece in pieces for one in piece.logprobs]
    shown = "".join(piece.text for piece in pieces).encode()
    told = b"".join(one.raw for one in entries)
    assert entries == [entry(vocabulary, id) for id in ids[:taken]][: len(entries)]
    assert told.startswith(shown)
    if pieces[-1].finish_reason == "length":
        assert told == shown
    elif entries:  # none but the one the stop begins in goes beyond what is shown
        assert len(told) - len(entries[-1].raw) < max(len(shown), 1)


@pytest.mark.parametrize("token", [301, 10**6])
def test_token_beyond_the_vocabulary_has_no_text(
    byte_level: PreTrainedTokenizerFast, token: int
) -> None:
    vocabulary = Vocabulary(byte_level)
    detokenizer = vocabulary.detokenizer(())
    assert (detokenizer.push(token), detokenizer.flush(), vocabulary.token_bytes(token)) == (
        "",
        "",
        b"",
    )
    assert detokenizer.push(byte_level.encode("a")[0]) == "a"
