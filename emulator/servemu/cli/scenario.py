"""`servemu scenario`: rehearsals in a file."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from servemu.cli.connection import AsJson, failure, show_json, show_table

if TYPE_CHECKING:
    from servemu.scenarios.playing import Outcome
    from servemu.scenarios.schema import Scenario

app = typer.Typer(help="Rehearsals: timed steps with expectations.", no_args_is_help=True)

INVALID = 2
"""Exit code for a file that is no scenario."""


@app.command("list")
def list_all(as_json: AsJson = False) -> None:
    """The scenarios that come with servemu."""
    from servemu.scenarios.files import read, shipped

    titles = {name: read(path).title for name, path in shipped().items()}
    if as_json:
        show_json({"scenarios": [{"name": n, "title": t} for n, t in titles.items()]})
        return
    show_table(("scenario", "what it rehearses"), list(titles.items()))


@app.command()
def run(
    scenario: Annotated[str, typer.Argument(help="A TOML file, or a name of `scenario list`.")],
    url: Annotated[
        str | None,
        typer.Option("--url", help="A running one, best on a paused clock. [starts its own]"),
    ] = None,
    token: Annotated[
        str | None,
        typer.Option(help="Chooses the workspace, which is reset first. [emu.scenario-NAME]"),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Of the emulator that is started.")] = None,
    as_json: AsJson = False,
) -> None:
    """Play a scenario. Exit code 1 when an expectation is not met, 2 for a bad file."""
    from servemu.catalog import CatalogInvalid
    from servemu.scenarios.emulator import EmulatorGone
    from servemu.scenarios.files import ScenarioInvalid, path_of, read
    from servemu.scenarios.playing import connect, play

    try:
        path = path_of(scenario)
        read_in = read(path)
    except ScenarioInvalid as error:
        raise failure(str(error), INVALID) from None
    own = token or f"emu.scenario-{path.stem}"
    try:
        with _running(read_in, seed, url) as where, connect(where, own) as emulator:
            outcome = play(read_in, emulator)
    except CatalogInvalid as error:  # of the scenario's settings
        raise failure(str(error), INVALID) from None
    except EmulatorGone as error:
        raise failure(str(error)) from None
    _show(outcome, as_json)
    if not outcome.ok:
        raise typer.Exit(1)


@contextmanager
def _running(scenario: "Scenario", seed: int | None, url: str | None) -> Iterator[str]:
    """The URL of the emulator to play against; without one an emulator of our own."""
    if url is not None:
        yield url
        return
    from servemu.cli.up import checked_settings
    from servemu.clock import PausedClock
    from servemu.testing import serve

    own = {"engine": "synthetic", "speedup": 1.0, **scenario.settings}
    own |= {"database": ":memory:", "auth": "open", "port": 0}
    own["seed"] = scenario.seed if seed is None else seed
    with serve(checked_settings(None, own), PausedClock()) as emulator:
        yield emulator.url


def _show(outcome: "Outcome", as_json: bool) -> None:
    rows = [(row.step, row.name, row.finding) for row in outcome.rows]
    if as_json:
        shown = [
            {
                "step": n,
                "name": name,
                "what": f.what,
                "expected": f.expected,
                "got": f.got,
                "ok": f.ok,
            }
            for n, name, f in rows
        ]
        log = {"event_log_hash": outcome.event_log_hash, "seed": outcome.seed}
        show_json({"ok": outcome.ok, "rows": shown, **log})
        return
    show_table(
        ("#", "step", "expected", "got", "ok"),
        [
            (str(n), name, f"{f.what} {f.expected}".strip(), f.got, "yes" if f.ok else "NO")
            for n, name, f in rows
        ],
    )
    unmet = sum(not finding.ok for _, _, finding in rows)
    typer.echo(f"scenario: {f'{unmet} not met' if unmet else 'passed'}")
    seed = "no seed" if outcome.seed is None else f"seed {outcome.seed}"
    typer.echo(f"event log: {outcome.event_log_hash} ({seed})")
