"""`servemu throughput`: the certificate on the terminal, as a table or as a chart that lives."""

import time
from typing import Annotated, Any

import typer

from servemu.cli.connection import (
    DEFAULT_URL,
    AsJson,
    Connection,
    Token,
    Url,
    show_json,
    show_table,
)

HEADINGS = (
    "endpoint",
    "entity",
    "provisioned",
    "delivered 1 s",
    "10 s",
    "60 s",
    "error %",
    "queue",
    "wait p50/p95 s",
    "replicas",
    "429s",
    "",
)
BETWEEN = 0.5
"""Seconds between two looks of `--watch`."""


def throughput(
    endpoint: Annotated[str | None, typer.Argument(help="Its name; none: all.")] = None,
    watch: Annotated[bool, typer.Option("--watch", help="Go on until Ctrl-C.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Provisioned and delivered tokens/s, error, queue, replicas, 429s."""
    connection = Connection(url, token)
    if watch:
        _watch(connection, endpoint)
        return
    if as_json:
        show_json(connection.get(_path(endpoint)))
        return
    shown = [row for one in _asked(connection, endpoint) for row in rows(one)]
    show_table(HEADINGS, shown, or_records=True)


def rows(certificate: dict[str, Any]) -> list[tuple[str, ...]]:
    """One for each served entity, and their sum where there are several."""
    entities = certificate["entities"]
    total = [{"name": "total", **certificate}] if len(entities) != 1 else []
    return [_row(certificate, part) for part in [*entities, *total]]


def _row(certificate: dict[str, Any], part: dict[str, Any]) -> tuple[str, ...]:
    from servemu.cli.throughput_chart import replicas_of, warning  # rich only where it is shown

    queue = part["queue"]
    errors = [window["error_percent"] for window in part["windows"]]
    error = next((one for one in errors[1:] if one is not None), errors[0])
    waits = [queue["wait_p50"], queue["wait_p95"]]
    return (
        certificate["endpoint"],
        part["name"],
        "unlimited" if part["provisioned"] is None else f"{part['provisioned']:,.0f}",
        *(f"{window['delivered']:,.0f}" for window in part["windows"]),
        "-" if error is None else f"{error:+.2f}",
        f"{queue['requests']} ({queue['tokens']:,.0f} tokens)" if queue["requests"] else "-",
        "-" if waits[0] is None else f"{waits[0]:.2f} / {waits[1]:.2f}",
        replicas_of(part),
        str(part["refused"]),
        warning({**part, "throughput_scale": certificate["throughput_scale"]}),
    )


def _watch(connection: Connection, endpoint: str | None) -> None:
    from rich.console import Console
    from rich.live import Live

    from servemu.cli.throughput_chart import History, chart, overview

    console = Console()
    histories: dict[str, History] = {}
    with Live(console=console, screen=console.is_terminal, auto_refresh=False) as live:
        try:
            while True:
                certificates = _asked(connection, endpoint)
                for one in certificates:
                    histories.setdefault(one["endpoint"], History()).add(one)
                live.update(
                    overview(certificates, histories)
                    if endpoint is None
                    else chart(certificates[0], histories[endpoint], console.size),
                    refresh=True,
                )
                time.sleep(BETWEEN)
        except KeyboardInterrupt:
            return


def _asked(connection: Connection, endpoint: str | None) -> list[dict[str, Any]]:
    answer = connection.get(_path(endpoint))
    certificates: list[dict[str, Any]] = answer["throughput"] if endpoint is None else [answer]
    return certificates


def _path(endpoint: str | None) -> str:
    from urllib.parse import quote

    return "/_emulator/throughput" + ("" if endpoint is None else f"/{quote(endpoint, safe='')}")
