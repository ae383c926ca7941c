"""`servemu fault`: add, list, show presets, remove."""

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

app = typer.Typer(help="Failures on demand.", no_args_is_help=True)

FAULTS = "/_emulator/faults"


@app.command()
def add(
    preset: Annotated[str, typer.Argument(help="See `servemu fault presets`.")],
    endpoint: Annotated[str, typer.Option(help="A glob on the endpoint's name.")] = "*",
    times: Annotated[int | None, typer.Option(help="How often; default: always.")] = None,
    skip: Annotated[int, typer.Option(help="Let so many through first.")] = 0,
    after: Annotated[
        str | None, typer.Option(help="How long it waits before it fails, as PT29M.")
    ] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Add a fault by the name of its preset; prints the rule's id."""
    when: dict[str, Any] = {"skip": skip} | ({} if times is None else {"times": times})
    rule: dict[str, Any] = {"preset": preset, "match": {"endpoint": endpoint}, "when": when}
    if after is not None:
        rule["effect"] = {"after": after}
    typer.echo(Connection(url, token).post(FAULTS, rule)["id"])


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
    show_table(("preset", "shows"), [(p["name"], p["shows"]) for p in answer["presets"]])


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
