"""`servemu models`: what is in memory and in the store, what comes into it and what goes."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

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
from servemu.cli.progress import shown

if TYPE_CHECKING:
    from servemu.catalog import Catalog
    from servemu.settings import Settings
    from servemu_engine.weights import ModelStore

app = typer.Typer(help="The small models that play the big ones.", no_args_is_help=True)


Store = Annotated[
    Path | None, typer.Option("--model-store", help="This folder, and no running emulator.")
]
MODELS = "/_emulator/models"


@app.command("list")
def list_all(
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
    model_store: Store = None,
) -> None:
    """The models of a running emulator, in its store and in memory; or those of a folder."""
    if model_store is None:
        answer = Connection(url, token).get(MODELS)
    else:
        stored = ({**asdict(one), "path": str(one.path)} for one in _store(model_store).list())
        answer = {"models": [{**row, "size": row.pop("num_bytes")} for row in stored]}
    if as_json:
        show_json(answer)
        return
    headings = ("name", "source", "dtype", "size", "computes in", "runner", "device", "")
    show_table(headings, [_row(model) for model in answer["models"]], or_records=True)


def _row(model: dict[str, Any]) -> tuple[str, ...]:
    return (
        model["name"],
        model.get("source", "-"),
        model.get("dtype", "-"),
        f"{model['size'] / 1e6:.0f} MB" if "size" in model else "-",
        model.get("precision", "-"),
        model.get("runner") or "-",
        model.get("device", "-"),
        "resident" if model.get("resident") else _how_far(model.get("loading")),
    )


def _how_far(loading: dict[str, Any] | None) -> str:
    if loading is None:
        return ""
    percent = f" {100 * loading['done'] // loading['total']} %" if loading["total"] else ""
    return f"{loading['doing']}{percent}"


@app.command()
def pull(
    sources: Annotated[
        list[str] | None,
        typer.Argument(
            help="Folders, GGUF files, hub ids (owner/model). Default: what the catalogue plays."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Call it so; for one source.")] = None,
    config: Annotated[Path | None, typer.Option(help="A servemu.toml.")] = None,
    model_store: Annotated[Path | None, typer.Option(help="Folder of converted weights.")] = None,
) -> None:
    """Store models once; `stand_in = "NAME"` in servemu.toml lets one play a family."""
    from servemu.cli.up import checked_settings
    from servemu_engine.errors import LoadFailed

    settings = checked_settings(config, {"model_store": model_store})
    if not sources:
        fetch(settings)
        return
    if name is not None and len(sources) > 1:
        raise typer.BadParameter("--name is for one source")
    for source in sources:
        try:
            with shown(name or source) as report:
                stored = _store(settings.model_store).pull(source, name, report)
        except LoadFailed as error:
            raise failure(str(error), 2) from None
        typer.echo(f"{stored.name} {stored.dtype} {stored.num_bytes / 1e6:.0f} MB")


@app.command()
def remove(
    name: str, url: Url = DEFAULT_URL, token: Token = None, model_store: Store = None
) -> None:
    """Remove a model that is not in memory from the store of a running emulator, or a folder."""
    from servemu_engine.errors import LoadFailed

    if model_store is None:
        Connection(url, token).delete(f"{MODELS}/{quote(name)}")
        return
    try:
        was_there = _store(model_store).remove(name)
    except LoadFailed as error:
        raise failure(str(error)) from None
    if not was_there:
        raise failure(f"model {name!r} is not in {model_store}")


def _store(folder: Path) -> "ModelStore":
    from servemu_engine.weights import ModelStore

    return ModelStore(folder.expanduser())


def fetch(settings: "Settings") -> None:
    """Bring the store up to date with the catalogue, with a progress bar for what is missing."""
    from servemu.catalog import load_catalog
    from servemu_engine.errors import LoadFailed

    store = _store(settings.model_store)
    for name in stand_ins(load_catalog(settings.catalog)):
        if store.path(name) is not None:
            continue
        try:
            with shown(name) as report:
                store.ensure(name, report)
        except LoadFailed as error:
            raise failure(str(error), 2) from None


def stand_ins(catalog: "Catalog") -> list[str]:
    """The models that play the catalogue's; custom models need no weights."""
    families = catalog.families.values()
    return sorted({family.stand_in for family in families if family.tasks != ("custom",)})


@app.command()
def install(
    listing: Annotated[str, typer.Argument(help="A Marketplace listing; none is: list them.")] = "",
    name: Annotated[str, typer.Option("--as", help="catalog.schema.model")] = "",
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Put a Marketplace listing into Unity Catalog, as the button "Get access" does."""
    connection = Connection(url, token)
    if not listing:
        found = connection.get("/_emulator/listings")["listings"]
        rows = [(one["name"], one["task"], one["model_type"]) for one in found]
        show_table(("listing", "task", "model type"), rows)
        return
    asked = {"name": name or f"marketplace.models.{listing}"}
    made = connection.post(f"/_emulator/listings/{quote(listing, safe='')}/install", asked)
    full_name = f"{made['catalog_name']}.{made['schema_name']}.{made['model_name']}"
    typer.echo(f"{full_name} version {made['version']}")
