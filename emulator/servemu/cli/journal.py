"""`servemu requests` and `servemu verdict`: what the clients asked, and how well they behaved."""

from typing import Annotated, Any
from urllib.parse import urlencode

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

WAIT = 5
"""Seconds that one question of `--follow` waits for something new."""
HEADINGS = ("#", "operation", "endpoint", "status", "try", "fault", "tokens", "ms")


def requests(
    operation: Annotated[str | None, typer.Option(help="As serving-endpoints.create.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="Its name.")] = None,
    status: Annotated[str | None, typer.Option(help="429, 4xx, or null: no answer.")] = None,
    since: Annotated[int, typer.Option(help="Those after this number.")] = 0,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until Ctrl-C.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """The journal: each request with what came of it, oldest first; `--json` names their ids."""
    asked = {"operation": operation, "endpoint": endpoint, "status": status}
    query = {name: value for name, value in asked.items() if value is not None}
    connection = Connection(url, token)
    while True:
        answer = connection.get(f"/_emulator/requests?{urlencode({**query, 'since': since})}")
        if as_json:
            show_json(answer)
        elif answer["requests"] or not follow:
            show_table(HEADINGS, [_row(entry) for entry in answer["requests"]])
        if not follow:
            return
        since = answer["next_since"]
        query["wait"] = str(WAIT)


def verdict(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """Grade the clients of the workspace. Exit code 1 with any error or warning."""
    answer = Connection(url, token).get("/_emulator/verdict")
    if as_json:
        show_json(answer)
    else:
        _show(answer)
    if answer["grade"] != "pass":
        raise typer.Exit(1)


def _show(answer: dict[str, Any]) -> None:
    for finding in answer["findings"]:
        typer.echo(f"{finding['grade']}: {finding['code']}: {finding['message']}")
        typer.echo(f"    {finding['advice']}")
        for name in ("requests", "rules"):
            if finding[name]:
                typer.echo(f"    {name}: {', '.join(finding[name])}")
    typer.echo(f"verdict: {answer['grade']}, {answer['requests']} requests")
    typer.echo(f"event log: {answer['event_log_hash']}")


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    status = "lost" if entry["status"] is None else f"{entry['status']} {entry['error_code']}"
    tokens = entry["tokens_in"] + entry["tokens_out"]
    return (
        str(entry["number"]),
        entry["operation"].removeprefix("serving-endpoints."),
        entry["endpoint"],
        status.strip(),
        str(entry["attempt"]),
        entry["fault"] or "",
        str(tokens) if tokens else "",
        f"{1000 * entry['duration']:.1f}",
    )
