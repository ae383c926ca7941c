"""`servemu plan`: the log it reads, and what it says of sizes."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from servemu.catalog import load_catalog
from servemu.cli.commands import app
from servemu.settings import Settings
from servemu.throughput.planning import LogInvalid, candidates, plan, read_log
from servemu.throughput.simulation import Arrival

LLAMA_8B = "system.ai.meta_llama_v3_1_8b_instruct"
GPT_OSS = "system.ai.gpt-oss-120b"
LINE = {"time": 0, "input_tokens": 10, "output_tokens": 5}
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def write(*requests: object) -> Path:
        file = tmp_path / "requests.jsonl"
        lines = (one if isinstance(one, str) else json.dumps(one) for one in requests)
        file.write_text("\n".join(lines))
        return file

    return write


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["plan", *map(str, arguments)])
    return result.exit_code, result.output


def test_times_are_seconds_or_iso_8601_in_any_order_and_start_at_zero() -> None:
    lines = [
        json.dumps(LINE | {"time": "2026-01-01T00:00:10Z"}),
        "",
        json.dumps(LINE | {"time": "2026-01-01T00:00:00", "input_tokens": 1}),
        json.dumps(LINE | {"time": 1767225605.5}),
    ]
    assert read_log(lines) == [Arrival(0.0, 1, 5), Arrival(5.5, 10, 5), Arrival(10.0, 10, 5)]


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("{", "line 2: is no JSON"),
        ("[1]", "line 2: is no JSON object"),
        ({"time": 1, "output_tokens": 1}, "line 2: has no input_tokens"),
        (LINE | {"input_tokens": -1}, "line 2: input_tokens is 0 to 1000000000, got -1"),
        (LINE | {"output_tokens": 1.5}, "line 2: output_tokens is 0 to 1000000000, got 1.5"),
        (LINE | {"input_tokens": 10**9 + 1},
         "line 2: input_tokens is 0 to 1000000000, got 1000000001"),
        (LINE | {"input_tokens": True}, "line 2: input_tokens is 0 to 1000000000, got True"),
        (LINE | {"time": "soon"}, "line 2: time is seconds or ISO 8601, got 'soon'"),
        ('{"time": NaN, "input_tokens": 1, "output_tokens": 1}',
         "line 2: time is seconds or ISO 8601, got nan"),
        (LINE | {"time": None}, "line 2: time is seconds or ISO 8601, got None"),
    ],
)  # fmt: skip
def test_bad_line_is_named_with_what_is_wrong(write: Write, line: object, why: str) -> None:
    file = write(LINE, line)
    code, output = run(file, "--model", LLAMA_8B)
    assert (code, output) == (2, f"servemu: {file}: {why}\n")


def test_empty_log_is_refused() -> None:
    with pytest.raises(LogInvalid, match="there is no request in it"):
        read_log(["", " "])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--model", "system.ai.none"], "there is no model 'system.ai.none' in the catalogue"),
        (
            ["--model", LLAMA_8B, "--size", "1:2:3"],
            "a size is tokens/s as max or min:max, or model units; got '1:2:3'",
        ),
        (
            ["--model", LLAMA_8B, "--size", "-5"],
            "a size is tokens/s as max or min:max, or model units; got '-5'",
        ),
        (
            ["--model", LLAMA_8B, "--size", "0"],
            f"max_provisioned_throughput must be greater than 0 for {LLAMA_8B}, got 0.",
        ),
        (
            ["--model", GPT_OSS, "--size", "60"],
            f"provisioned_model_units must be a positive multiple of 50 for {GPT_OSS}, got 60.",
        ),
        (["--model", GPT_OSS, "--size", "50:100"], "model units are one number, got '50:100'"),
    ],
)
def test_bad_model_or_size_is_one_line(write: Write, arguments: list[str], message: str) -> None:
    assert run(write(LINE), *arguments) == (2, f"servemu: {message}\n")


def test_a_missing_file_is_one_line(tmp_path: Path) -> None:
    code, output = run(tmp_path / "none", "--model", LLAMA_8B)
    assert (code, output.count("\n")) == (2, 1)


def test_one_request_costs_what_its_seconds_cost(write: Write) -> None:
    requests = [LINE, LINE | {"time": 3600, "input_tokens": 0, "output_tokens": 0}]
    code, output = run(write(*requests), "--model", LLAMA_8B, "--size", "38000", "--json")
    assert code == 0
    [shown] = json.loads(output)["plans"]
    whole: dict[str, Any] = {
        "name": "38000–38000",
        "requests": 2,
        "refused": 0,
        "timed_out": 0,
        "queue_p50": 0.0,
        "hours": 1.0,
        "replica_hours": 2.0,
        "most_replicas": 2,
        "dbus": 212.0,
    }
    assert {key: shown[key] for key in whole} == whole
    assert shown["replicas"] == pytest.approx([2.0] * 40)


def test_a_larger_size_refuses_less_and_costs_more() -> None:
    model = load_catalog().models[LLAMA_8B]
    arrivals = [Arrival(number * 0.1, 3000, 300) for number in range(3000)]
    plans = [plan(model, one, arrivals) for one in candidates(model, [], Settings())]
    refused = [one.refused for one in plans]
    assert refused == sorted(refused, reverse=True) and refused[0] > refused[-1]
    assert [one.most_replicas for one in plans][:2] == [1, 2]
    assert plans[0].dbus < plans[-1].dbus
    assert plans[0].queue_p95 > 5


def test_model_units_are_a_fixed_size_that_may_burst(write: Write) -> None:
    code, output = run(write(LINE), "--model", GPT_OSS, "--json")
    names = [one["name"] for one in json.loads(output)["plans"]]
    assert (code, names) == (0, ["50", "100", "200", "400"])


def test_the_table_has_a_line_for_each_size(write: Write) -> None:
    code, output = run(write(LINE), "--model", LLAMA_8B, "--size", "19000:38000")
    assert code == 0
    assert f"{LLAMA_8B}: 1 requests in" in output and "19000–38000 " in output
