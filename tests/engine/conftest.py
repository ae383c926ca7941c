"""Tiny models over bytes, servers of few words, the folder of compiled libraries."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from tests.remote_servers import TerseServer, terse_server
from tests.tiny_text import PROMPTS, TEMPLATE, WINDOW, Reference
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from servemu_engine.local import LocalEngine, LocalOptions

TINY = {
    "architectures": ["LlamaForCausalLM"],
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
}
MakeTokenizer = Callable[..., PreTrainedTokenizerFast]


@pytest.fixture(scope="session")
def compiled_libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled once for all tests that want the compiled runner."""
    return tmp_path_factory.mktemp("compiled-libraries")


@pytest.fixture(autouse=True)
def threads_of_torch() -> Iterator[None]:
    """A runner takes all of torch's threads but one from the thread that it is checked in."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def byte_tokenizer() -> MakeTokenizer:
    """Makes a byte-level BPE: special tokens (the last of them ends), a token for each byte, and
    merges learnt from the texts.
    """

    def make(
        *texts: str,
        vocab_size: int = 257,
        special: Sequence[str] = ("<|end|>",),
        template: str | None = None,
    ) -> PreTrainedTokenizerFast:
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(special),
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        )
        tokenizer.train_from_iterator(texts, trainer)
        return PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, eos_token=special[-1], chat_template=template
        )

    return make


@pytest.fixture(scope="session")
def byte_llama(
    tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: MakeTokenizer
) -> Callable[..., Path]:
    """Makes the folder of a random Llama, over single bytes at first; `config` of LlamaConfig."""

    def make(
        name: str,
        seed: int = 7,
        tokenizer: PreTrainedTokenizerFast | None = None,
        **config: object,
    ) -> Path:
        folder = tmp_path_factory.mktemp(name)
        tokenizer = tokenizer or byte_tokenizer()
        tokenizer.save_pretrained(folder)
        torch.manual_seed(seed)
        ends = {"eos_token_id": tokenizer.eos_token_id, "bos_token_id": None}
        llama = LlamaConfig(**{**TINY, "vocab_size": len(tokenizer), **ends, **config})
        (folder / "config.json").write_text(llama.to_json_string())
        state = {k: v.contiguous() for k, v in LlamaForCausalLM(llama).state_dict().items()}
        if llama.tie_word_embeddings:
            del state["lm_head.weight"]
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return folder

    return make


@pytest.fixture
def terse() -> Iterator[TerseServer]:
    with terse_server() as server:
        yield server


@pytest.fixture(scope="session")
def reference(byte_llama: Callable[..., Path], byte_tokenizer: MakeTokenizer) -> Reference:
    tokenizer = byte_tokenizer(
        *PROMPTS, vocab_size=320, special=("<|im_start|>", "<|im_end|>"), template=TEMPLATE
    )
    folder = byte_llama(
        "tiny-llama-text",
        seed=5,
        tokenizer=tokenizer,
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=WINDOW,
        initializer_range=0.2,
    )
    model = LlamaForCausalLM.from_pretrained(folder).eval().requires_grad_(False)
    return Reference(folder, model, tokenizer)


@pytest.fixture(scope="module")
def engine(reference: Reference) -> Iterator[LocalEngine]:
    """One engine on the reference for all tests: each of them has an event loop of its own."""
    engine = LocalEngine(reference.folder, "tiny", LocalOptions(device="cpu", max_num_sequences=4))
    engine.start()
    yield engine
    engine.close()
