"""Tokenizers that are read without `AutoTokenizer` are those that it would have read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Regex, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from servemu_engine.loading import load_tokenizer
from servemu_engine.tokenizer_folder import _QWEN_WORDS, tells_all

Make = Callable[..., Path]
Change = Callable[[dict[str, Any], dict[str, Any]], object]
TEXTS = [
    "",
    "hello, the low lower lowest",
    "  two  blanks\r\n\n\tand 12345 numbers' it's IT'S we'll",
    "naïve caf\u0065\u0301 – 日本語 🙂 \u00a0",
    "<|end|>middle<|im_start|>user\nhi<|im_end|><|none|>",
]
TURNS = [
    {"role": "system", "content": "be brief"},
    {"role": "user", "content": "what is low? <|im_end|>"},
]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.fixture
def make(byte_tokenizer: Callable[..., PreTrainedTokenizerFast], tmp_path: Path) -> Make:
    """A folder of a family, whose configs name a class."""

    def make(family: str, named: str, words: str | None = None, **own: object) -> Path:
        tokenizer = byte_tokenizer("low lower lowest hello hello 12 it's we'll", vocab_size=300)
        if words is not None:
            backend = tokenizer.backend_tokenizer
            backend.normalizer = normalizers.NFC()
            split = pre_tokenizers.Split(Regex(words), "isolated")
            to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
            backend.pre_tokenizer = pre_tokenizers.Sequence([split, to_bytes])
        tokenizer.add_special_tokens(
            {"additional_special_tokens": ["<|im_start|>", "<|im_end|>"], "pad_token": "<|end|>"}
        )
        tokenizer.add_tokens("<tool>")
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"model_type": family}))
        written = tmp_path / "tokenizer_config.json"
        told = json.loads(written.read_text())
        told |= {"tokenizer_class": named, "unk_token": None, "eos_token": "<|im_end|>"}
        written.write_text(json.dumps({**told, **own}))
        return tmp_path

    return make


def assert_reads_what_auto_reads(folder: Path) -> None:
    ours = load_tokenizer(folder)
    theirs = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    for text in TEXTS:
        for special in (True, False):
            ids = theirs.encode(text, add_special_tokens=special)
            assert ours.encode(text, add_special_tokens=special) == ids
            assert [ours.decode(ids, skip_special_tokens=skip) for skip in (True, False)] == [
                theirs.decode(ids, skip_special_tokens=skip) for skip in (True, False)
            ]
    rendered = [
        one.apply_chat_template(TURNS, add_generation_prompt=True, return_dict=False)
        for one in (ours, theirs)
    ]
    assert rendered[0] == rendered[1]
    assert ours.get_vocab() == theirs.get_vocab()
    for name in ("all_special_ids", "special_tokens_map", "added_tokens_decoder"):
        assert getattr(ours, name) == getattr(theirs, name)
    for name in ("eos_token_id", "bos_token_id", "pad_token_id", "model_max_length"):
        assert getattr(ours, name) == getattr(theirs, name)


@pytest.mark.parametrize(
    ("family", "named", "words"),
    [
        ("llama", "PreTrainedTokenizerFast", None),
        ("llama", "TokenizersBackend", None),
        ("llama", "LlamaTokenizerFast", None),
        ("mistral", "LlamaTokenizer", None),
        ("mistral", "LlamaTokenizerFast", None),
        ("mistral", "PreTrainedTokenizerFast", None),
        ("mistral", "TokenizersBackend", None),
        ("qwen2", "Qwen2Tokenizer", _QWEN_WORDS),
        ("qwen2", "Qwen2TokenizerFast", _QWEN_WORDS),
        ("qwen2", "LlamaTokenizerFast", _QWEN_WORDS),
        ("qwen2", "PreTrainedTokenizerFast", _QWEN_WORDS),
        ("qwen3", "Qwen2Tokenizer", _QWEN_WORDS),
        ("qwen3", "PreTrainedTokenizerFast", None),
    ],
)
def test_file_that_tells_all_is_read_as_auto_tokenizer_reads_it(
    make: Make, family: str, named: str, words: str | None
) -> None:
    folder = make(family, named, words)
    assert tells_all(folder)
    assert type(load_tokenizer(folder)) is PreTrainedTokenizerFast
    assert_reads_what_auto_reads(folder)


@pytest.mark.parametrize(
    ("family", "named", "words", "own"),
    [
        ("qwen2", "Qwen2Tokenizer", None, {}),
        ("qwen2", "PreTrainedTokenizerFast", None, {}),
        ("qwen2", "Qwen2Tokenizer", r"\w+|\W", {}),
        ("qwen2", "Qwen2Tokenizer", _QWEN_WORDS, {"pad_token": "<|new|>"}),
        ("qwen3", "Qwen2Tokenizer", None, {}),
        ("gpt2", "GPT2Tokenizer", None, {}),
    ],
)
def test_file_that_a_class_would_change_is_left_to_auto_tokenizer(
    make: Make, family: str, named: str, words: str | None, own: dict[str, object]
) -> None:
    folder = make(family, named, words, **own)
    assert not tells_all(folder)
    assert_reads_what_auto_reads(folder)


def test_format_of_mistral_is_left_to_auto_tokenizer(make: Make) -> None:
    folder = make("mistral", "LlamaTokenizer")
    (folder / "tekken.json").write_text("{}")
    assert not tells_all(folder)


def test_code_of_its_own_is_left_to_auto_tokenizer(make: Make) -> None:
    assert not tells_all(make("llama", "TokenizersBackend", auto_map={"AutoTokenizer": "x.Own"}))
