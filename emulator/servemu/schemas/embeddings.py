"""`llm/v1/embeddings`: the request (facts/data_plane §2.3), and its answer (§3.5)."""

import base64
import struct
from collections.abc import Sequence
from typing import Literal

from pydantic import Field

from servemu.schemas.decoding import Body, Pairs, PositiveInt, refuse
from servemu.schemas.sampling import Strings
from servemu.serving import Served
from servemu_engine.base import EmbedRequest

MAX_TEXTS = 150
"""facts/data_plane §2.3; the refusal of more is a GUESS."""
MAX_INSTRUCTION = 10_000
"""Characters. Ours: it stands before each text, 150 times four MB at worst."""


class EmbeddingsRequest(Body):
    """Body of an embeddings call."""

    input: Strings
    instruction: str = ""
    """Stands before each text, as BGE and Qwen3 want it for queries; the blank between is a
    GUESS."""
    encoding_format: Literal["float", "base64"] = "float"
    model: str = ""
    dimensions: PositiveInt | None = None
    user: str = ""
    client_request_id: str = ""
    usage_context: Pairs = Field(default_factory=dict)
    extra_params: Pairs = Field(default_factory=dict)
    """As in `GenerationFields`."""

    def embed_request(self, served: Served) -> EmbedRequest:
        """What the embedder is asked. Raises `BadRequest`, texts GUESS."""
        if len(self.instruction) > MAX_INSTRUCTION:
            raise refuse(f"instruction must have at most {MAX_INSTRUCTION} characters")
        if not 1 <= len(self.input) <= MAX_TEXTS:
            raise refuse(f"input must be a string or a list of 1 to {MAX_TEXTS} strings")
        most = served.dimensions
        if self.dimensions and most and self.dimensions > most:
            raise refuse(f"dimensions must be at most {most} for this model")
        prefix = f"{self.instruction} " if self.instruction else ""
        return EmbedRequest(
            texts=tuple(prefix + text for text in self.input),
            dimensions=self.dimensions or most,
            normalize=served.normalize,
            context_length=served.context_length,
        )

    def body(
        self, model: str, vectors: Sequence[Sequence[float]], num_tokens: int
    ) -> dict[str, object]:
        """The answer; its usage has no completion_tokens."""
        encode = _base64 if self.encoding_format == "base64" else list[float]
        return {
            "object": "list",
            "model": model,
            "data": [
                {"index": index, "object": "embedding", "embedding": encode(vector)}
                for index, vector in enumerate(vectors)
            ],
            "usage": {"prompt_tokens": num_tokens, "total_tokens": num_tokens},
        }


def _base64(vector: Sequence[float]) -> str:
    """Little-endian float32, as openai-python reads it (PROBE)."""
    return base64.b64encode(struct.pack(f"<{len(vector)}f", *vector)).decode("ascii")
