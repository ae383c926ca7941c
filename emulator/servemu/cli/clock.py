"""`servemu clock`: the workspace's time."""

import re
from datetime import timedelta
from typing import Annotated

import typer

from servemu.cli.connection import DEFAULT_URL, AsJson, Connection, Token, Url, show_json

app = typer.Typer(help="The time of the workspace.", no_args_is_help=True)

PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)([dhms]?)", re.IGNORECASE)
DURATION = re.compile(f"(?:{PART.pattern})+", re.IGNORECASE)
SECONDS = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0, "": 1.0}


def seconds_of(text: str) -> float:
    """`45m`, `1h30m`, `90`, `PT45M`. Raises typer's `BadParameter`."""
    given = re.sub(r"^P?T?", "", text, flags=re.IGNORECASE)
    if DURATION.fullmatch(given) is None:
        raise typer.BadParameter(f"a duration is as 45m, 1h30m, 90 or PT45M, got '{text}'")
    return sum(float(number) * SECONDS[unit.lower()] for number, unit in PART.findall(given))


@app.command()
def show(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """What time it is, and how far it was moved."""
    _show(Connection(url, token).get("/_emulator/clock"), as_json)


@app.command()
def advance(
    duration: Annotated[str, typer.Argument(help="As 45m, 1h30m, 90 or PT45M.")],
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
) -> None:
    """Move it forward; everything that falls due has happened before this ends."""
    body = {"seconds": seconds_of(duration)}
    _show(Connection(url, token).post("/_emulator/clock/advance", body), as_json)


def _show(answer: dict[str, float], as_json: bool) -> None:
    if as_json:
        show_json(answer)
        return
    from datetime import UTC, datetime

    typer.echo(f"now          {datetime.fromtimestamp(answer['now'], UTC).isoformat()}")
    typer.echo(f"advanced by  {timedelta(seconds=round(answer['advanced_by'], 3))}")
    typer.echo(f"speedup      {answer['speedup']:g}")
