"""`make bench`: measures, prints one report. `run.py [start control engine embeddings bars …]`.

No figure is a test: nothing here fails because something was slow.
"""

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.bench import (
    control,
    embeddings,
    engine,
    engine_bars,
    engine_readme,
    record,
    start,
    synthetic,
    throughput,
)
from tests.bench.engine_plan import ENGINES
from tests.bench.engine_work import WORKLOADS
from tests.bench.report import Options, as_json, machine, show

SECTIONS = {
    "start": start.run,
    "control": control.run,
    "engine": engine.run,
    "synthetic": synthetic.run,
    "embeddings": embeddings.run,
    "bars": engine_bars.run,
    "throughput": throughput.run,
}

FEWEST_ROUNDS = 3


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sections", nargs="*", choices=[[], *SECTIONS], metavar="section")
    parser.add_argument("--json", type=Path, metavar="FILE", help="Also write the figures there.")
    parser.add_argument("--dtype", choices=["float32", "int16", "bfloat16"], default="float32")
    parser.add_argument("--rounds", type=int, default=FEWEST_ROUNDS, help="Of the engine.")
    parser.add_argument("--quick", action="store_true", help="Engine: fewer peers and streams.")
    parser.add_argument(
        "--streams", nargs="+", choices=WORKLOADS, default=(), help="Engine: only these."
    )
    parser.add_argument(
        "--record", type=Path, metavar="FILE", help="Keep the engine's rounds; do what it lacks."
    )
    parser.add_argument(
        "--engines", nargs="+", choices=ENGINES, default=(), help="Engine: only these."
    )
    parser.add_argument(
        "--readme", action="store_true", help="Write what --record has into README.md."
    )
    parser.add_argument("--plot", type=Path, metavar="PNG", help="Draw the engine's race there.")
    parser.add_argument("--seconds", type=float, default=5.0, help="Of a throughput window.")
    return parser.parse_args(arguments)


def main() -> int:
    """Run the sections in turn; what was measured is written also when a later one is stopped."""
    given = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with TemporaryDirectory() as folder:
        options = Options(
            dtype=given.dtype,
            rounds=given.rounds,
            seconds=given.seconds,
            record=given.record or Path(folder) / "record.jsonl",
            quick=given.quick,
            streams=tuple(given.streams),
            engines=tuple(given.engines),
            plot=given.plot,
        )
        try:
            measure(given.sections or list(SECTIONS), options, given.json)
        except KeyboardInterrupt:
            return 130
        if given.readme:
            engine_readme.write(record.read(options.record))
    return 0


def measure(sections: Sequence[str], options: Options, file: Path | None) -> None:
    """Print the tables of each section as it ends; `file` gets all of them as JSON."""
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print(" · ".join(f"{key} {value}" for key, value in machine().items()))
    measured: dict[str, object] = {}
    report: dict[str, object] = {"machine": machine(), "sections": measured}
    began = time.monotonic()
    try:
        for name in sections:
            tables = SECTIONS[name](options)
            for table in tables:
                show(console, table)
            measured[name] = [as_json(table) for table in tables]
    finally:
        if file is not None:
            file.write_text(json.dumps(report, indent=2) + "\n")
    console.print(f"{time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    sys.exit(main())
