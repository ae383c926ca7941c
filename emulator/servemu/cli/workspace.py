"""`servemu reset`: the workspace as a whole."""

import typer

from servemu.cli.connection import DEFAULT_URL, Connection, Token, Url


def reset(url: Url = DEFAULT_URL, token: Token = None) -> None:
    """Take the workspace back to its first second."""
    gone = Connection(url, token).post("/_emulator/reset", {})["endpoints"]
    typer.echo(f"reset: {gone} endpoints went")
