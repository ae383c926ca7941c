"""`servemu reset` and `servemu snapshot`: the workspace as a whole."""

import json
from pathlib import Path
from typing import Annotated

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

app = typer.Typer(help="Named states of the workspace.", no_args_is_help=True)

SNAPSHOTS = "/_emulator/snapshots"
Name = Annotated[str, typer.Argument(help="The snapshot's name.")]


def reset(url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Take the workspace back to its first second; its snapshots stay."""
    gone = Connection(url, token).post("/_emulator/reset", {})["endpoints"]
    typer.echo(f"reset: {gone} endpoints went")


@app.command()
def save(name: Name, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Keep the workspace as it is now, in place of a snapshot of this name."""
    kept = Connection(url, token).post(f"{SNAPSHOTS}/{name}", {})
    typer.echo(f"{name}: {len(kept['endpoints'])} endpoints, {kept['faults']} fault rules")


@app.command("list")
def list_all(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """The snapshots of the workspace."""
    answer = Connection(url, token).get(SNAPSHOTS)
    if as_json:
        show_json(answer)
        return
    rows = [(s["name"], ", ".join(s["endpoints"]), str(s["faults"])) for s in answer["snapshots"]]
    show_table(("name", "endpoints", "fault rules"), rows)


@app.command()
def restore(name: Name, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Make the workspace, and its clock, what they were."""
    Connection(url, token).post(f"{SNAPSHOTS}/{name}/restore", {})
    typer.echo(f"{name}: restored")


@app.command()
def export(name: Name, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Print the snapshot as JSON; no secrets are in it."""
    show_json(Connection(url, token).get(f"{SNAPSHOTS}/{name}"))


@app.command("import")
def import_file(
    name: Name,
    file: Annotated[Path, typer.Argument(help="What `export` printed.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Keep the file as a snapshot; `restore` then brings it up."""
    try:
        document = json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise failure(f"cannot read {file}: {error}") from None
    if not isinstance(document, dict) or not document:
        raise failure(f"cannot read {file}: it is no JSON object")
    Connection(url, token).post(f"{SNAPSHOTS}/{name}", document)
    typer.echo(f"{name}: imported")


@app.command()
def remove(name: Name, url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Forget the snapshot."""
    Connection(url, token).delete(f"{SNAPSHOTS}/{name}")
