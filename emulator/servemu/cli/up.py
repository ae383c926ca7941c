"""`servemu up`: from flags to a running server."""

import gc
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from servemu.cli.connection import failure

if TYPE_CHECKING:
    from socket import socket

    from servemu.settings import Settings

REFUSED = 2
"""Exit code of a start that cannot succeed: taken port, bad config, broken database."""


def up(
    host: Annotated[str | None, typer.Option(help="Address to listen on. [127.0.0.1]")] = None,
    port: Annotated[int | None, typer.Option(help="0 picks a free one. [8484]")] = None,
    database: Annotated[
        str | None, typer.Option(help="File, SQLAlchemy URL or :memory:. [:memory:]")
    ] = None,
    engine: Annotated[str | None, typer.Option(help="local, synthetic or remote. [local]")] = None,
    speedup: Annotated[
        float | None, typer.Option(help="Real durations are divided by this. [60]")
    ] = None,
    auth: Annotated[str | None, typer.Option(help="open or strict. [open]")] = None,
    runner: Annotated[
        str | None, typer.Option(help="auto, transformers or compiled. [auto]")
    ] = None,
    remote_url: Annotated[
        str | None, typer.Option(help="An OpenAI-compatible server, with /v1, for remote.")
    ] = None,
    remote_model: Annotated[
        str | None, typer.Option(help="What it is asked for. [the first it lists]")
    ] = None,
    remote_key: Annotated[str | None, typer.Option(help="Its bearer token.")] = None,
    config: Annotated[Path | None, typer.Option(help="A servemu.toml.")] = None,
    model_store: Annotated[Path | None, typer.Option(help="Folder of converted weights.")] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same ids and draws.")] = None,
    clock: Annotated[
        str | None, typer.Option(help="real, or paused: moved by `clock advance` only. [real]")
    ] = None,
) -> None:
    """Run the emulator until Ctrl-C. The last line on stdout says where it answers."""
    flags = {
        "host": host,
        "port": port,
        "database": database,
        "engine": engine,
        "speedup": speedup,
        "auth": auth,
        "runner": runner,
        "model_store": model_store,
        "seed": seed,
        "clock": clock,
        "remote_url": remote_url,
        "remote_model": remote_model,
        "remote_key": remote_key,
    }
    settings = checked_settings(config, flags)
    if settings.engine == "local":
        _require_models(settings)
    _serve(settings)


def checked_settings(config: Path | None, flags: Mapping[str, object]) -> "Settings":
    """The settings, or one line and exit code 2."""
    import tomllib

    from pydantic import ValidationError
    from pydantic_settings import SettingsError

    from servemu.settings import load_settings

    try:
        return load_settings(config, **flags)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        raise failure(f"setting {name}: {first['msg']}", REFUSED) from None
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise failure(f"config {config}: {error}", REFUSED) from None
    except SettingsError as error:  # a SERVEMU_* variable that should hold JSON
        raise failure(f"setting: {error}", REFUSED) from None


def _require_models(settings: "Settings") -> None:
    """Real models need the extra, and their weights."""
    if find_spec("torch") is None or find_spec("transformers") is None:
        raise failure(
            "the local engine needs the extra: pip install 'servemu[models]', "
            "or start with --engine synthetic",
            REFUSED,
        )
    from servemu.cli.models import fetch

    fetch(settings)


def _bound(settings: "Settings") -> "socket":
    from servemu.server import bind

    try:
        return bind(settings.host, settings.port)
    except (OSError, UnicodeError) as error:  # UnicodeError: no host can be called that
        where = f"{settings.host}:{settings.port}"
        why = error.strerror if isinstance(error, OSError) else error
        raise failure(f"cannot listen on {where}: {why}", REFUSED) from None


def _serve(settings: "Settings") -> None:
    from servemu.app import create_app
    from servemu.catalog import CatalogInvalid
    from servemu.cli.progress import display
    from servemu.clock import PausedClock, SystemClock
    from servemu.loads import Loads
    from servemu.server import Server, url_of
    from servemu.wiring import build_world, warm_up
    from servemu_state.errors import StateError

    with _bound(settings) as sock, display() as show:
        try:
            clock = PausedClock() if settings.clock == "paused" else SystemClock()
            world = build_world(settings, clock, loads=Loads(show))
        except (StateError, CatalogInvalid) as error:
            raise failure(str(error), REFUSED) from None
        if settings.auth == "open" and settings.host not in ("127.0.0.1", "::1", "localhost"):
            typer.echo(f"servemu: anybody who reaches {settings.host} is let in", err=True)
        ready = f"servemu ready {url_of(sock)}"

        def on_ready() -> None:
            typer.echo(ready)
            if settings.engine == "local":
                warm_up()

        gc.freeze()
        gc.enable()
        server = Server(create_app(world), on_ready)
        server.run(sockets=[sock])
        if not server.started:
            raise typer.Exit(1)
