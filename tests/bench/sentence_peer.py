"""sentence-transformers as a yardstick, run by the interpreter of `.venv-peers`: `FOLDER`.

A line of JSON on stdin, `{"texts": [...]}`, is embedded as one batch and gives one on stdout.
"""

import json
import sys
import time

from sentence_transformers import SentenceTransformer


def main() -> None:
    """Until the end of the input."""
    model = SentenceTransformer(sys.argv[1], device="cpu")
    for line in sys.stdin:
        texts = json.loads(line)["texts"]
        began = time.perf_counter()
        vectors = model.encode(texts, batch_size=len(texts), show_progress_bar=False)
        seconds = time.perf_counter() - began
        sys.stdout.write(json.dumps({"seconds": seconds, "vectors": vectors.tolist()}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
