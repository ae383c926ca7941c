"""`servemu plan`: what a log of requests would have needed. Asks no emulator."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servemu.cli.connection import AsJson, failure, show_json, show_table

if TYPE_CHECKING:
    from servemu.throughput.planning import Plan

BARS = "▁▂▃▄▅▆▇█"


def plan(
    log: Annotated[
        Path,
        typer.Argument(
            help='JSONL: {"time": seconds or ISO 8601, "input_tokens": n, "output_tokens": n}'
        ),
    ],
    model: Annotated[str, typer.Option(help="As system.ai.meta_llama_v3_1_8b_instruct.")],
    size: Annotated[
        list[str] | None,
        typer.Option(help="Tokens/s as max or min:max, or model units; may be given often."),
    ] = None,
    scale_to_zero: Annotated[bool, typer.Option(help="After 30 idle minutes.")] = False,
    config: Annotated[
        Path | None, typer.Option(help="A servemu.toml: settings, catalogue.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay a log against sizes: queue, 429s, replicas, DBU; by the emulator's own budget, queue
    and autoscaler, on simulated time. DBU are an estimate from list prices."""
    plans = _plans(log, model, size or [], config, scale_to_zero)
    if as_json:
        from dataclasses import asdict

        show_json({"model": model, "plans": [asdict(one) for one in plans]})
        return
    first = plans[0]
    typer.echo(f"{model}: {first.requests} requests in {first.hours:.2f} h")
    headings = ("SIZE", "P50", "P95", "429", "DBU", "MOST", "REPLICAS")
    show_table(headings, [_row(one) for one in plans])
    typer.echo("SIZE in tokens/s or model units. P50, P95: seconds in the queue. MOST: replicas.")
    if held := [f"{one.timed_out} of {one.name}" for one in plans if one.timed_out]:
        typer.echo(f"Timed out while it woke: {', '.join(held)}.")


def _plans(
    log: Path, model_name: str, sizes: Sequence[str], config: Path | None, scale_to_zero: bool
) -> "list[Plan]":
    from servemu.catalog import CatalogInvalid, ThroughputInvalid, load_catalog
    from servemu.settings import load_settings
    from servemu.throughput import planning

    try:
        settings = load_settings(config)
        model = load_catalog(settings.catalog).model(model_name)
        if model is None:
            raise failure(f"there is no model '{model_name}' in the catalogue", 2)
        candidates = planning.candidates(model, sizes, settings, scale_to_zero=scale_to_zero)
        with log.open(encoding="utf-8", errors="replace") as lines:
            arrivals = planning.read_log(lines)
    except planning.LogInvalid as error:
        raise failure(f"{log}: {error}", 2) from None
    except (planning.SizeInvalid, ThroughputInvalid, CatalogInvalid, OSError, ValueError) as error:
        raise failure(str(error), 2) from None
    return [planning.plan(model, candidate, arrivals) for candidate in candidates]


def _row(plan: "Plan") -> tuple[str, ...]:
    return (
        plan.name,
        f"{plan.queue_p50:.2f}",
        f"{plan.queue_p95:.2f}",
        f"{plan.refused / plan.requests:.1%}",
        f"{plan.dbus:.1f}",
        str(plan.most_replicas),
        sparkline(plan.replicas[::2]),
    )


def sparkline(values: Sequence[float]) -> str:
    """One character a value, the highest bar for the largest."""
    most = max(values, default=0.0) or 1.0
    return "".join(BARS[round(value / most * (len(BARS) - 1))] for value in values)
