"""Token ids and what they stand for: text, exact bytes, the end of an answer."""

import re
from collections.abc import Iterable, Sequence
from functools import lru_cache

from transformers.convert_slow_tokenizer import bytes_to_unicode
from transformers.tokenization_utils_base import PreTrainedTokenizerBase

from servemu_engine.stopping import BytesDetokenizer, Detokenizer, WindowDetokenizer

_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>")
"""Ends of a turn that some folders name in their chat template only."""
_BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")
_BYTE_OF = {character: byte for byte, character in bytes_to_unicode().items()}


class Vocabulary:
    """Reads a tokenizer; safe from several threads."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer
        self._backend = getattr(tokenizer, "backend_tokenizer", None)
        self._is_byte_level = self._backend is not None and "ByteLevel" in repr(
            self._backend.decoder
        )
        added = tokenizer.added_tokens_decoder
        self._special = set(tokenizer.all_special_ids) | set(added)
        self._silent = {id for id, token in added.items() if token.special}
        self.longest = max(map(len, tokenizer.get_vocab()), default=1)
        """No token stands for more characters."""
        self.token_bytes = lru_cache(maxsize=65536)(self._token_bytes)

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`; special tokens give none."""
        if self._backend is not None:
            # the wrapper's own decode costs ten times as much a call
            return str(self._backend.decode(ids, skip_special_tokens=True))
        return str(
            self.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        )

    def detokenizer(self, prompt_ids: Sequence[int]) -> Detokenizer:
        """Of an answer to a prompt."""
        if self._is_byte_level:
            return BytesDetokenizer(self._text_bytes)
        return WindowDetokenizer(self.decode, prompt_ids)

    def _text_bytes(self, token: int) -> bytes:
        """Special tokens give no text."""
        return b"" if token in self._silent else self.token_bytes(token)

    def _token_bytes(self, token: int) -> bytes:
        """Exact bytes of one token; half a character for some. Unknown ids have none."""
        name = self.tokenizer.convert_ids_to_tokens(token)
        if not isinstance(name, str):
            return b""
        if token in self._special:
            return name.encode()
        if self._is_byte_level and all(character in _BYTE_OF for character in name):
            return bytes(_BYTE_OF[character] for character in name)
        if match := _BYTE_TOKEN.fullmatch(name):
            return bytes([int(match[1], 16)])
        return name.replace("\u2581", " ").encode()

    def end_ids(self, named: Iterable[int]) -> frozenset[int]:
        """All that end an answer: those that the configs of the model name, that of the tokenizer,
        and turn ends."""
        own = self.tokenizer.eos_token_id
        ids = {*named, *(own if isinstance(own, list | tuple) else [own] * (own is not None))}
        added = self.tokenizer.added_tokens_decoder
        ids.update(id for id, token in added.items() if str(token) in _TURN_ENDS)
        return frozenset(ids)
