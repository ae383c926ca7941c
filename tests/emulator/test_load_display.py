"""How far a load is: in a terminal, in a log, in `servemu models list`."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from servemu.catalog import CatalogModel, load_catalog
from servemu.cli.models import _row
from servemu.cli.progress import Bars, Lines
from servemu.clock import PausedClock
from servemu.loads import Loads, Stage
from servemu.residents import Bounds, Residents
from servemu.routes.stored_models import describe
from servemu.settings import Settings
from servemu.wiring import build_world
from servemu_engine.base import Engine
from servemu_engine.errors import LoadFailed
from servemu_engine.synthetic import SyntheticEngine

LONG = "somebody-with-a-long-name/a-model-with-a-name-that-is-longer-than-a-line-of-80-columns"


@pytest.fixture
def terminal() -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=80, legacy_windows=False)


def drawn(terminal: Console, *stages: Stage) -> str:
    """The last line that is drawn of the first model, with a second one under way."""
    bars = Bars(lambda: terminal)
    for stage in stages:
        bars(LONG, stage)
    bars("short", Stage("import", 0, None))
    plain = Console(file=io.StringIO(), width=80)
    assert bars._bars is not None
    plain.print(bars._bars.get_renderable())
    bars.close()
    assert isinstance(plain.file, io.StringIO)
    return plain.file.getvalue().splitlines()[0]


def test_bar_fits_the_terminal_and_tells_phase_and_percent(terminal: Console) -> None:
    line = drawn(terminal, Stage("pack", 1, 3))
    assert len(line.rstrip()) <= 80
    assert "somebody" in line
    assert "… packing weights " in line
    assert " 33% 0:00:0" in line


def test_bar_of_a_phase_of_unknown_length_tells_no_percent(terminal: Console) -> None:
    line = drawn(terminal, Stage("pack", 1, 3), Stage("try", 0, None))
    assert "trying a step" in line
    assert "%" not in line


def test_time_runs_on_and_the_spinner_spins_after_a_phase_that_is_whole(terminal: Console) -> None:
    bars = Bars(lambda: terminal)
    for stage in (Stage("read", 3, 3), Stage("pack", 1, 3)):
        bars("m", stage)
    assert bars._bars is not None
    assert not bars._bars.finished
    assert bars._bars.tasks[0].finished_time is None
    bars.close()


def test_bars_end_with_the_last_model_and_give_the_cursor_back(terminal: Console) -> None:
    loads = Loads(Bars(lambda: terminal))
    loads.progress("a")("pack", 0, 2)
    loads.progress("b")("pack", 0, 2)
    assert isinstance(terminal.file, io.StringIO)
    show_cursor = "\x1b[?25h"
    loads.end("a")
    assert show_cursor not in terminal.file.getvalue()
    loads.end("b")
    assert show_cursor in terminal.file.getvalue()


def test_log_has_a_line_after_2_seconds_then_each_10_then_the_whole_time() -> None:
    seconds = 0.0
    said: list[str] = []
    show = Lines(said.append, lambda: seconds)
    for seconds in (0.0, 1.9, 2.0, 3.0, 11.9, 12.0):
        show("m", Stage("pack", int(seconds), 20))
    show("m", None)
    assert said == [
        "servemu: model m: packing weights, 10 %\n",
        "servemu: model m: packing weights, 60 %\n",
        "servemu: model m: 12 s in all\n",
    ]


def test_log_says_nothing_of_a_quick_load() -> None:
    said: list[str] = []
    show = Lines(said.append, lambda: 0.0)
    show("m", Stage("map", 0, None))
    show("m", None)
    assert said == []


def test_models_tell_what_is_under_way_until_it_ends(tmp_path: Path) -> None:
    world = build_world(Settings(engine="synthetic", model_store=tmp_path), PausedClock())
    loads = world.residents.loads
    loads.progress("owner/new")("download", 512, 2048)
    assert describe(world) == {
        "owner/new": {
            "name": "owner/new",
            "resident": False,
            "loading": {"phase": "download", "doing": "downloading", "done": 512, "total": 2048},
        }
    }
    row = _row(describe(world)["owner/new"])
    assert row == ("owner/new", "-", "-", "-", "-", "-", "-", "downloading 25 %")
    loads.end("owner/new")
    assert describe(world) == {}


@pytest.fixture
def model() -> CatalogModel:
    model = next(iter(load_catalog({}).models.values()))
    return replace(model, family=replace(model.family, stand_in="m"))


Told = list[tuple[str, Any]]


def loading(fails: bool, told: Told) -> Callable[[CatalogModel], None]:
    """Loads a model whose engine tells that it packs."""
    loads = Loads(lambda name, stage: told.append((name, stage)))

    def build(model: CatalogModel) -> Engine:
        loads.progress("m")("pack", 0, 2)
        if fails:
            raise LoadFailed("no memory")
        return SyntheticEngine("m")

    residents = Residents(build, PausedClock(), Bounds(1, None, 1), loads)

    def load(model: CatalogModel) -> None:
        try:
            residents.load(model)
        finally:
            assert loads.describe() == {}
            residents.close()

    return load


def test_load_that_is_over_is_under_way_no_more(model: CatalogModel) -> None:
    told: Told = []
    loading(False, told)(model)
    assert told == [("m", Stage("pack", 0, 2)), ("m", None)]


def test_load_that_failed_is_under_way_no_more(model: CatalogModel) -> None:
    told: Told = []
    with pytest.raises(LoadFailed, match="no memory"):
        loading(True, told)(model)
    assert told == [("m", Stage("pack", 0, 2)), ("m", None)]
