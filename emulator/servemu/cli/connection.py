"""Asking a running emulator, and saying in one line when that does not work."""

from collections.abc import Sequence
from typing import Annotated, Any

import typer

Url = Annotated[str, typer.Option("--url", envvar="SERVEMU_URL", help="Where the emulator runs.")]
Token = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="DATABRICKS_TOKEN", help="Chooses the workspace; none: the default one."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print what the emulator answered.")]

DEFAULT_URL = "http://127.0.0.1:8484"
_ANY_WIDTH = 10_000
"""Columns."""


class Connection:
    """A running emulator. A failure ends the command with exit code 1 and one line on stderr."""

    def __init__(self, url: str, token: str | None) -> None:
        self._url = url
        self._headers = {"Authorization": f"Bearer {token or 'servemu-cli'}"}

    def get(self, path: str) -> dict[str, Any]:
        return self._ask("GET", path)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        return self._ask("POST", path, body)

    def delete(self, path: str) -> dict[str, Any]:
        return self._ask("DELETE", path)

    def _ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        import httpx

        try:
            with httpx.Client(base_url=self._url, headers=self._headers, timeout=30) as client:
                response = client.request(method, path, json=body)
            answer = response.json()
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise failure(f"no emulator answers at {self._url} ({error})") from None
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "x-databricks-org-id" not in response.headers:
            raise failure(f"what answers at {self._url} is no emulator")
        if response.is_error:
            raise failure(str(answer.get("message", answer)))
        return answer


def failure(message: str, code: int = 1) -> typer.Exit:
    """Print the one line; raise what this returns."""
    typer.echo(f"servemu: {message}", err=True)
    return typer.Exit(code)


def show_json(answer: dict[str, Any]) -> None:
    import json

    typer.echo(json.dumps(answer, indent=2, ensure_ascii=False))


def show_table(
    headings: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, or_records: bool = False
) -> None:
    """A plain table; long values are wrapped, never cut. `or_records`: where that would wrap, each
    row is told in lines of its own: first its name, then what there is to say of it."""
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.measure import Measurement
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, header_style="bold")
    for heading in headings:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*row)
    console = Console()
    wide = console.options.update(max_width=_ANY_WIDTH)
    if or_records and Measurement.get(console, wide, table).maximum > console.width:
        for row in rows:
            console.print(row[0], style="bold", markup=False, highlight=False, soft_wrap=True)
            for line in _record(headings[1:], row[1:], console.width):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    console.print(table)


def _record(headings: tuple[str, ...], values: tuple[str, ...], width: int) -> list[str]:
    """Headings and values in lines of at most `width`, where they fit; empty ones are left out."""
    lines: list[str] = []
    for heading, value in zip(headings, values, strict=True):
        if value in ("", "-"):
            continue
        said = f"{heading} {value}".strip()
        if lines and len(lines[-1]) + len(said) + 3 <= width:
            lines[-1] += f" · {said}"
        else:
            lines.append(f"  {said}")
    return lines
