"""`servemu models`: what is in memory, what is in the store, fetching weights."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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

if TYPE_CHECKING:
    from servemu.settings import Settings
    from servemu_engine.weights import Progress

app = typer.Typer(help="The small models that play the big ones.", no_args_is_help=True)


@app.command("list")
def list_all(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """The models of a running emulator: in its store, and in memory."""
    answer = Connection(url, token).get("/_emulator/models")
    if as_json:
        show_json(answer)
        return
    rows = [
        (
            model["name"],
            model.get("source", "-"),
            model["dtype"],
            f"{model['size'] / 1e6:.0f} MB",
            model.get("device", "-"),
            model.get("runner") or "-",
            "resident" if model["resident"] else "",
        )
        for model in answer["models"]
    ]
    show_table(("name", "source", "dtype", "size", "device", "runner", ""), rows)


@app.command()
def pull(
    names: Annotated[
        list[str] | None, typer.Argument(help="Default: all that the catalogue plays with.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="A servemu.toml.")] = None,
    model_store: Annotated[Path | None, typer.Option(help="Folder of converted weights.")] = None,
) -> None:
    """Fetch and convert weights once, so that the emulator starts with them."""
    from servemu.cli.up import checked_settings

    fetch(checked_settings(config, {"model_store": model_store}), names)


def fetch(settings: "Settings", names: Sequence[str] | None) -> None:
    """Bring the store up to date, with a progress bar for what is missing."""
    from servemu.catalog import load_catalog
    from servemu_engine.errors import LoadFailed
    from servemu_engine.weights import ModelStore

    if names is None:
        families = load_catalog(settings.catalog).families.values()
        names = sorted({family.stand_in for family in families})
    store = ModelStore(settings.model_store.expanduser())
    for name in names:
        if store.path(name) is not None:
            continue
        try:
            with progress_bar(name) as report:
                store.ensure(name, report)
        except LoadFailed as error:
            raise failure(str(error), 2) from None


@contextmanager
def progress_bar(name: str) -> Iterator["Progress"]:
    """A bar on stderr; call what it gives with (phase, done, total or None)."""
    from rich.console import Console
    from rich.progress import BarColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(name, total=None)

        def report(phase: str, done: int, total: int | None) -> None:
            bar.update(task, description=f"{name}: {phase}", completed=done, total=total)

        yield report
