"""Which tokenizer files tell all by themselves, so that no class of transformers' models is needed.

`AutoTokenizer` decides by names in configs which class reads a folder, and finds the class by
importing `transformers.models`, which takes 1 to 2 seconds. For the families of the compiled step,
whose loads import nothing else of it, most of its decisions are that tokenizer.json is taken as it
is, or rebuilt as the very thing that it already is.
"""

from pathlib import Path
from typing import Any

from servemu_engine.model_folder import read_json

_BACKEND = ("TokenizersBackend", "PreTrainedTokenizer")
"""Names of the class that takes tokenizer.json as it is, without the ending "Fast"."""
_QWEN_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How every Qwen2 and Qwen3 splits texts (their tokenizer.json), and `Qwen2Tokenizer` always."""
_QWEN_MODEL: dict[str, tuple[object, ...]] = {
    "type": ("BPE",),
    **dict.fromkeys(("dropout", "unk_token"), (None,)),
    **dict.fromkeys(("continuing_subword_prefix", "end_of_word_suffix"), (None, "")),
    **dict.fromkeys(("fuse_unk", "byte_fallback", "ignore_merges"), (None, False)),
}


def tells_all(folder: Path) -> bool:
    """Whether `PreTrainedTokenizerFast` reads from it what `AutoTokenizer` of transformers 5 would.
    False where that is not certain. Raises `LoadFailed` for files that are no JSON."""
    if not all((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json")):
        return False
    config, own = read_json(folder, "config.json"), read_json(folder, "tokenizer_config.json")
    named = own.get("tokenizer_class")
    if "model_name" in config or "auto_map" in own or not isinstance(named, str):
        return False
    name = named.removesuffix("Fast")
    match config.get("model_type"):
        case "mistral":  # whatever class a folder names, unless it has a format of Mistral's own
            has_own_format = (folder / "tekken.json").exists()
            return name in (*_BACKEND, "LlamaTokenizer") and not has_own_format
        case "qwen2":  # always of the class `Qwen2Tokenizer`
            known = (*_BACKEND, "LlamaTokenizer", "Qwen2Tokenizer")
            return name in known and _is_qwen(folder, own)
        case "llama" | "qwen3":
            if name == "LlamaTokenizer":  # a name of many whose files are like Llama 3's
                return '"ByteLevel"' in (folder / "tokenizer.json").read_text(encoding="utf-8")
            return name in _BACKEND or (name == "Qwen2Tokenizer" and _is_qwen(folder, own))
    return False


def _is_qwen(folder: Path, own: dict[str, Any]) -> bool:
    """Whether its files say what `Qwen2Tokenizer` makes of any: splitting, special tokens."""
    told = read_json(folder, "tokenizer.json")
    special = {token["content"] for token in told.get("added_tokens", ()) if token["special"]}
    named = [own.get(kind, "?") for kind in ("unk_token", "eos_token", "pad_token")]
    named = [token["content"] if isinstance(token, dict) else token for token in named]
    return (
        all(told["model"].get(key) in values for key, values in _QWEN_MODEL.items())
        and (told.get("decoder") or {}).get("type") == "ByteLevel"
        and (told.get("normalizer") or {}).get("type") == "NFC"
        and _splits_like_qwen(told.get("pre_tokenizer") or {})
        and special.issuperset(token for token in named if token is not None)
    )


def _splits_like_qwen(pre_tokenizer: dict[str, Any]) -> bool:
    parts = pre_tokenizer.get("pretokenizers", [])
    if [part["type"] for part in parts] != ["Split", "ByteLevel"]:
        return False
    split, to_bytes = parts
    return (
        (split["behavior"], split["invert"]) == ("Isolated", False)
        and split["pattern"] == {"Regex": _QWEN_WORDS}
        and (to_bytes["add_prefix_space"], to_bytes["use_regex"]) == (False, False)
    )
