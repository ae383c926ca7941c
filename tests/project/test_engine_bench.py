"""The engine's bench goes on where it was cut, and README's figures come from its record."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from tests.bench import engine_readme
from tests.bench.engine_bars import Bar, bars
from tests.bench.engine_peers import Measured
from tests.bench.engine_plan import left, turns
from tests.bench.record import Embeddings, Loading, Record, Round, append, read
from tests.bench.report import Options
from tests.bench.roofline import Roofline

ROOFLINE = Roofline(100e9, 40e9, 1_000_000, 250_000)
BATCH = Round(
    "32",
    0,
    ("compiled", "llama"),
    (100,) * 32,
    28,
    ROOFLINE,
    {
        "ours compiled float32": Measured(2048, 10.0, (1.0, 2.0), 1024),
        "llama.cpp BF16": Measured(2048, 20.0, (1.0, 8.0), 1024),
    },
)
OPTIONS = Options(dtype="float32", rounds=2, seconds=1.0, record=Path("unused"))


def verdicts(rounds: Sequence[Round]) -> dict[str, Bar]:
    return {bar.what: bar for bar in bars(Record(list(rounds), [], []))}


def test_a_run_goes_on_where_the_record_ends() -> None:
    options = replace(OPTIONS, streams=("1", "32"), engines=("compiled", "llama"))
    todo = left(turns(options), [BATCH])
    assert [(turn.number, turn.workload) for turn in todo] == [(0, "1"), (1, "1"), (1, "32")]


def test_a_round_without_an_engine_that_is_asked_for_is_run_again() -> None:
    options = replace(OPTIONS, rounds=1, streams=("32",), engines=("compiled", "int16"))
    assert left(turns(options), [BATCH]) == turns(options)


def test_slow_engines_run_in_their_first_rounds_only() -> None:
    ran = [(turn.number, turn.workload) for turn in turns(OPTIONS) if "batching" in turn.engines]
    assert ran == [(0, "1"), (0, "8"), (0, "32")]


def test_record_gives_back_what_was_appended(tmp_path: Path) -> None:
    file = tmp_path / "record.jsonl"
    loading, embeddings = Loading(1.0, 2.0, 0.5, 0.4, 0.3), Embeddings(8, 200.0, 100.0, 2.0, 1.0)
    append(file, [BATCH, loading])
    append(file, [embeddings])
    assert read(file) == Record([BATCH], [loading], [embeddings])


def test_record_of_an_absent_file_is_empty(tmp_path: Path) -> None:
    assert read(tmp_path / "absent.jsonl") == Record([], [], [])


@pytest.mark.parametrize(
    ("what", "value", "verdict"),
    [
        ("B ÷ llama.cpp BF16, 32 streams", 2.0, "met"),
        ("TTFT max, B, 32 streams, s", 2.0, "met"),
        ("A ÷ llama.cpp BF16, 8 streams", None, "not measured"),
    ],
)
def test_bars_tell_what_was_measured(what: str, value: float | None, verdict: str) -> None:
    bar = verdicts([BATCH])[what]
    assert (bar.value, bar.verdict) == (value, verdict)


@pytest.mark.parametrize(("bar", "is_most"), [(3.0, False), (1.0, True)])
def test_a_bar_can_be_missed(bar: float, is_most: bool) -> None:
    assert Bar("x", 2.0, bar, is_most).verdict == "missed"


def test_roofline_of_few_rows_is_memory_and_of_many_arithmetic() -> None:
    assert ROOFLINE.decode_rate(1) == pytest.approx(40e9 / 4e6)
    assert ROOFLINE.decode_rate(1, "BF16") == pytest.approx(40e9 / 2e6)
    assert ROOFLINE.decode_rate(1000) == pytest.approx(100e9 / 2e6)


def test_prompts_pass_through_the_head_once_an_answer() -> None:
    assert ROOFLINE.prompt_seconds(100, 2) == pytest.approx((750_000 * 100 + 500_000) * 2 / 100e9)


def test_figures_go_between_the_marks_of_readme(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(engine_readme.README.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr(engine_readme, "README", readme)
    monkeypatch.setattr(engine_readme, "plot", lambda rounds, file: None)
    engine_readme.write(Record([BATCH], [], []))
    assert "| 32 | 205 | 102 |" in readme.read_text(encoding="utf-8")


def test_a_readme_without_marks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "README.md").write_text("no marks", encoding="utf-8")
    monkeypatch.setattr(engine_readme, "README", tmp_path / "README.md")
    with pytest.raises(ValueError, match="lacks"):
        engine_readme.write(Record([BATCH], [], []))


def test_figures_of_readme_are_those_of_the_record_beside_its_picture() -> None:
    kept = read(engine_readme.README.parent / "tests/bench/plots/engine.jsonl")
    text = engine_readme.README.read_text(encoding="utf-8")
    shown = text.partition(engine_readme.BEGIN)[2].partition(engine_readme.END)[0]
    assert kept.rounds
    assert shown.strip("\n") == "\n".join(engine_readme.lines(kept)).strip("\n")
