"""Start-up time and idle memory, with the synthetic engine (aims: design §13)."""

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from tempfile import TemporaryDirectory

from tests.bench.load import Load, measure
from tests.bench.processes import call, resident_megabytes, running, servemu_up, settle
from tests.bench.provisioned import MODEL
from tests.bench.report import Options, Table, middle

ENDPOINTS = "/api/2.0/serving-endpoints"

CREATE = (
    '{"name": "bench-{n}", "config": {"served_entities": [{"entity_name": "' + MODEL + '",'
    ' "entity_version": "2", "min_provisioned_throughput": 0,'
    ' "max_provisioned_throughput": 19000}]}}'
)

STARTS = 5

IMPORTS = (
    "import servemu.cli, servemu.settings, servemu.app, servemu.catalog, servemu.server, "
    "servemu.wiring, servemu_state.errors, uvloop, httptools, uvicorn.loops.uvloop, "
    "uvicorn.protocols.http.httptools_impl, uvicorn.lifespan.on"
)
"""What `servemu up` has imported when it answers."""


def run(options: Options) -> list[Table]:
    """Start-up and memory."""
    with TemporaryDirectory() as bytecode:
        env = with_bytecode(bytecode)
        first_answer(env)  # writes the bytecode
        turns = [
            (first_answer(env), python_seconds("pass", env), python_seconds(IMPORTS, env))
            for _ in range(STARTS)
        ]
    starts, bare, imports = zip(*turns, strict=True)
    total, interpreter = middle(starts), middle(bare)
    imported = middle(imports) - interpreter
    return [
        Table(
            "Start: process start to first answered request",
            ("part", "s", "share %"),
            [
                ("interpreter", interpreter, round(100 * interpreter / total)),
                ("imports", round(imported, 3), round(100 * imported / total)),
                (
                    "database, catalogue, server, one request",
                    round(total - interpreter - imported, 3),
                    round(100 * (total - interpreter - imported) / total),
                ),
                ("total", total, 100),
            ],
            (
                f"Median of {STARTS}, with bytecode, aim ≤ 0.35 s.",
                "Parts come from processes that only do that part.",
            ),
        ),
        memory(),
    ]


def with_bytecode(folder: str) -> dict[str, str]:
    """An environment that keeps bytecode, as an installed package has it, wherever this runs."""
    env = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    return env | {"PYTHONPYCACHEPREFIX": folder}


def first_answer(env: Mapping[str, str]) -> float:
    """Seconds from before the process exists to the whole answer of a list."""
    began = time.perf_counter()
    with running(servemu_up(), env) as server:
        call(server, "GET", ENDPOINTS)
        return time.perf_counter() - began


def python_seconds(code: str, env: Mapping[str, str]) -> float:
    """Seconds that a process takes which runs only this."""
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], env=env, check=True)
    return time.perf_counter() - began


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
