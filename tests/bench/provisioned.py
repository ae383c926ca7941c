"""An emulator whose 8B model has a chosen chunk size, played by an engine that can keep up.

Run as a process; it ends with its input.
"""

import argparse
import sys

from servemu.catalog import CatalogModel
from servemu.residents import Build
from servemu.settings import Settings
from servemu.testing import serve
from servemu_engine.synthetic import Replies, SyntheticEngine

FAMILY = "llama-8b"
MODEL = "system.ai.meta_llama_v3_1_8b_instruct"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--engine", choices=["local", "synthetic"], default="synthetic")
    parser.add_argument("--rate", type=int, required=True, help="Tokens/s of one replica.")
    parser.add_argument("--tokens-per-chunk", type=int, default=1, help="Synthetic engine only.")
    parser.add_argument("--pace", choices=["budget", "model"], default="budget")
    return parser.parse_args(arguments)


def endless(tokens_per_chunk: int) -> Build:
    """Synthetic answers that end only at `max_tokens`."""
    replies = Replies(tokens_per_chunk, mean_tokens=None)

    def build(model: CatalogModel) -> SyntheticEngine:
        return SyntheticEngine(model.family.stand_in, replies=replies)

    return build


def main() -> None:
    given = parse()
    settings = Settings(
        engine=given.engine,
        port=0,
        pace=given.pace,
        catalog={"families": {FAMILY: {"chunk": given.rate}}},
        max_workspace_qps=1e6,  # short requests of many streams are more than a workspace may ask
        max_queue_seconds=60,
    )
    build = endless(given.tokens_per_chunk) if given.engine == "synthetic" else None
    with serve(settings, build=build) as emulator:
        sys.stdout.write(f"servemu ready {emulator.url}\n")
        sys.stdout.flush()
        sys.stdin.read()


if __name__ == "__main__":
    main()
