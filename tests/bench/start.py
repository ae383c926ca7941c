"""Start-up time and idle memory, with the synthetic engine (aims: design §13)."""

import os
import sys
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from tempfile import TemporaryDirectory

from tests.bench.load import Load, measure
from tests.bench.processes import call, resident_megabytes, running, servemu_up, settle
from tests.bench.provisioned import MODEL
from tests.bench.report import Cell, Options, Table, middle

ENDPOINTS = "/api/2.0/serving-endpoints"

CREATE = (
    '{"name": "bench-{n}", "config": {"served_entities": [{"entity_name": "' + MODEL + '",'
    ' "entity_version": "2", "min_provisioned_throughput": 0,'
    ' "max_provisioned_throughput": 19000}]}}'
)

STARTS = 5

IMPORTS = (
    "import servemu.cli.starting, servemu.settings, servemu.app, servemu.catalog, servemu.server, "
    "servemu.wiring, servemu_state.errors, servemu.routes.endpoints, uvloop, "
    "httptools, uvicorn.loops.uvloop, uvicorn.protocols.http.httptools_impl, uvicorn.lifespan.on"
)
"""What `servemu up` has imported when it answers."""


STEPS = f"""
import gc, sys
gc.disable()
sys.stdout.write("interpreter\\n")
sys.stdout.flush()
{IMPORTS}
sys.stdout.write("imports\\n")
sys.stdout.flush()
servemu.cli.main()
"""
"""`servemu up` that says how far it is."""


def run(options: Options) -> list[Table]:
    """Start-up and memory."""
    with TemporaryDirectory() as bytecode:
        env = with_bytecode(bytecode)
        step_seconds(env)  # writes the bytecode
        turns = [(step_seconds(env), first_answer(servemu_up(), env)[1]) for _ in range(STARTS)]
    steps = [middle(seconds) for seconds in zip(*(steps for steps, _ in turns), strict=True)]
    names = ("interpreter", "imports", "database, catalogue, server", "first request")
    rows: list[tuple[Cell, ...]] = [
        (name, seconds, round(100 * seconds / sum(steps)))
        for name, seconds in zip(names, steps, strict=True)
    ]
    rows.append(("total, by the plain command", middle([total for _, total in turns]), None))
    return [
        Table(
            "Start: process start to first answered request",
            ("part", "s", "share %"),
            rows,
            (f"Medians of {STARTS}, with bytecode; aim ≤ 0.35 s.",),
        ),
        memory(),
    ]


def with_bytecode(folder: str) -> dict[str, str]:
    """An environment that keeps bytecode, as an installed package has it, wherever this runs."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return env | {"PYTHONPYCACHEPREFIX": folder}


def first_answer(command: Sequence[str], env: Mapping[str, str]) -> tuple[list[float], float]:
    """Seconds, from before the process exists, of each of its lines and of the whole answer."""
    began = time.perf_counter()
    with running(command, env) as server:
        call(server, "GET", ENDPOINTS)
        answered = time.perf_counter()
        return [at - began for at in server.lines_at], answered - began


def step_seconds(env: Mapping[str, str]) -> list[float]:
    """Seconds of each step, the first request included."""
    _, _, _, *up = servemu_up()
    lines, answered = first_answer([sys.executable, "-c", STEPS, *up], env)
    return [after - before for before, after in pairwise([0.0, *lines, answered])]


def memory() -> Table:
    """Resident memory of an idle emulator."""
    with running(servemu_up()) as server:
        call(server, "GET", ENDPOINTS)
        empty = resident_megabytes(server.pid)
        fill(server.port, 1000)
        settle(server)
        full = resident_megabytes(server.pid)
    return Table(
        "Idle memory, synthetic engine, database in memory",
        ("state", "RSS MB"),
        [("after the first request", empty), ("after 1,000 endpoints, deployed", full)],
        ("Aim ≤ 60 MB without models.",),
    )


def fill(port: int, endpoints: int, *, token: str = "bench") -> int:
    """Create so many endpoints; the number of the next."""
    load = Load(
        port=port, method="POST", path=ENDPOINTS, body=CREATE, token=token, requests=endpoints
    )
    return measure(load).next
