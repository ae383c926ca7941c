"""`servemu fault`: add, list, show presets, remove, clear."""

from pathlib import Path
from typing import Annotated, Any

import typer

from servemu.cli.connection import (
    DEFAULT_URL,
    AsJson,
    Connection,
    Token,
    Url,
    failure,
    show_json,
    show_table,
)

app = typer.Typer(help="Failures on demand.", no_args_is_help=True)

FAULTS = "/_emulator/faults"


@app.command()
def add(
    what: Annotated[
        str,
        typer.Argument(
            help="A preset (see `servemu fault presets`), an effect such as "
            "'status=503;retry-after=2', or a file: @rules.json"
        ),
    ],
    rule_id: Annotated[str | None, typer.Option("--id", help="Its name in the ledger.")] = None,
    endpoint: Annotated[str | None, typer.Option(help="A glob on the endpoint's name.")] = None,
    operation: Annotated[
        str | None, typer.Option(help="Globs with | between: serving-endpoints.get, invocations.")
    ] = None,
    entity: Annotated[str | None, typer.Option(help="A glob on the served entity.")] = None,
    header: Annotated[
        list[str] | None, typer.Option(help="name=value that requests must carry.")
    ] = None,
    times: Annotated[int | None, typer.Option(help="How often; default: always.")] = None,
    skip: Annotated[int | None, typer.Option(help="Let so many through first.")] = None,
    probability: Annotated[float | None, typer.Option(help="0 to 1.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of the draws.")] = None,
    since: Annotated[
        str | None, typer.Option("--from", help="Not before, from now on: PT10M.")
    ] = None,
    until: Annotated[str | None, typer.Option(help="Not after, from now on: P1D.")] = None,
    state: Annotated[str | None, typer.Option(help="While the endpoint shows IN_PROGRESS.")] = None,
    phase: Annotated[str | None, typer.Option(help="For example after_commit.")] = None,
    after: Annotated[
        str | None, typer.Option(help="How long a deployment waits before it fails, as PT29M.")
    ] = None,
    expires_in: Annotated[str | None, typer.Option(help="Then the rule is dead: PT5M.")] = None,
    must_fire: Annotated[
        bool, typer.Option("--must-fire", help="A test fails without it.")
    ] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Add a fault; prints the rule's id. A field of its own wins over the preset's."""
    connection = Connection(url, token)
    if what.startswith("@"):
        for rule in _of_file(connection, what[1:]):
            typer.echo(rule["id"])
        return
    match = _given(
        endpoint=endpoint, operation=operation, entity=entity, header=_headers(header or [])
    )
    when = _given(
        times=times, skip=skip, probability=probability, seed=seed, until=until, state=state
    ) | _given(**{"from": since})
    fields = _given(id=rule_id, phase=phase, expires_in=expires_in, must_fire=must_fire or None)
    body = {"shorthand": what, "match": match, "when": when, **fields}
    if after is not None:
        body["effect"] = {"after": after}
    typer.echo(connection.post(FAULTS, body)["id"])


@app.command("list")
def list_all(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """The rules and how often each fired."""
    answer = Connection(url, token).get(FAULTS)
    if as_json:
        show_json(answer)
        return
    rows = [
        (
            rule["id"],
            rule["match"].get("operation", "any"),
            rule["match"]["endpoint"],
            rule["effect"]["type"],
            str(rule["matched"]),
            str(rule["fired"]),
            "no limit" if rule["remaining"] is None else str(rule["remaining"]),
        )
        for rule in answer["faults"]
    ]
    show_table(("id", "operation", "endpoint", "effect", "matched", "fired", "remaining"), rows)


@app.command()
def presets(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """The named failures, and what a client sees of each."""
    answer = Connection(url, token).get("/_emulator/presets")
    if as_json:
        show_json(answer)
        return
    rows = [
        (p["name"], p["source"], p["rule"].get("phase", ""), p["shows"]) for p in answer["presets"]
    ]
    show_table(("preset", "row", "phase", "what a client sees"), rows)


@app.command()
def remove(
    rule_id: Annotated[str | None, typer.Argument(help="None with --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All rules of the workspace.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Remove a rule, or all of them."""
    if every == (rule_id is not None):
        raise typer.BadParameter("give either the id of a rule or --all")
    Connection(url, token).delete(FAULTS if rule_id is None else f"{FAULTS}/{rule_id}")


@app.command()
def clear(url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Remove all rules of the workspace."""
    Connection(url, token).delete(FAULTS)


def _of_file(connection: Connection, path: str) -> list[dict[str, Any]]:
    """Adds the rules of a JSON file: one, or a list, of which all are added or none."""
    import json

    try:
        given = json.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise failure(f"{path}: {error}") from None
    answer = connection.post(FAULTS, {"faults": given} if isinstance(given, list) else given)
    rules: list[dict[str, Any]] = answer.get("faults", [answer])
    return rules


def _given(**fields: object) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value not in (None, {})}


def _headers(pairs: list[str]) -> dict[str, str]:
    headers = {}
    for pair in pairs:
        name, is_set, value = pair.partition("=")
        if not is_set:
            raise typer.BadParameter(f"'{pair}' is no name=value")
        headers[name] = value
    return headers
