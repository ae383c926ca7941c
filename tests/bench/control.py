"""The control plane's latency and rate over a database in a file, between floor and yardstick."""

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.bench import yardstick
from tests.bench.load import Load
from tests.bench.operations import CONNECTIONS, Case, measured
from tests.bench.processes import Running, bench_module, call, running, servemu_up, settle
from tests.bench.report import Cell, Options, Table, middle, significant
from tests.bench.start import CREATE, ENDPOINTS, fill

TAGS = '{"add_tags": [{"key": "team", "value": "{n}"}]}'

SIZES = (1, 1_000, 10_000)
"""Endpoints in the workspace."""


LONG_LISTS = 16
"""Requests for a list of 10,000."""

YARDSTICK = 1_000
"""Endpoints in moto."""

RESET = 1_000
"""Endpoints that a reset removes."""

RESETS = 3


def run(options: Options) -> list[Table]:
    """The operations, with each of `SIZES` endpoints, then moto's."""
    with running(bench_module("floor")) as floor:
        get = measured("floor: GET", None, Load(port=floor.port, method="GET", path="/"))
        post = measured(
            "floor: POST", None, Load(port=floor.port, method="POST", path="/", body=CREATE)
        )
    with TemporaryDirectory() as folder:
        database = Path(folder) / "bench.db"
        with running(servemu_up("--database", str(database))) as server:
            cases = [case for size in SIZES for case in operations(server, size)]
            workspace_resets = resets(server)
    cases += yardstick.cases(YARDSTICK)
    rows = [_row(get, get), _row(post, post)]
    rows += [_row(case, get if case.name.startswith("GET") else post) for case in cases]
    connections = f"at {CONNECTIONS}"
    return [
        Table(
            "Control plane: one keep-alive connection, then 8",
            (
                "operation",
                "endpoints",
                "p50 ms",
                "p99 ms",
                "p50 - floor ms",
                f"requests/s {connections}",
                f"p99 ms {connections}",
                "share of floor's rate %",
            ),
            rows,
            (
                "Aim: GET p50 ≤ 1 ms, p99 ≤ 5 ms at one connection; ≥ 2,000 requests/s at eight.",
                "Floor: the same client and uvicorn settings, an app that answers 1 kB.",
                "POST create includes the deployments behind it; the count is that at its start.",
                *yardstick.NOTES,
            ),
        ),
        workspace_resets,
    ]


def operations(server: Running, size: int) -> Iterator[Case]:
    """All operations in a workspace of its own that begins with `size` endpoints."""
    token = f"emu.size{size}"
    created = fill(server.port, size, token=token)
    settle(server, token=token)
    get = Load(port=server.port, method="GET", path=f"{ENDPOINTS}/bench-0", token=token)
    yield measured("GET one", size, get)
    # A window of a second is too short for lists that take half of one.
    lists = replace(get, path=ENDPOINTS, requests=LONG_LISTS if size >= 10_000 else None)
    yield measured("GET list", size, lists)
    tags = replace(get, method="PATCH", path=f"{ENDPOINTS}/bench-0/tags", body=TAGS)
    yield measured("PATCH tags", size, tags)
    create = replace(get, method="POST", path=ENDPOINTS, body=CREATE, first=created)
    yield measured("POST create", size, create)
    settle(server, token=token)


def resets(server: Running) -> Table:
    """A workspace of `RESET` endpoints back to nothing, over HTTP on a connection of its own."""
    under_way = _reset_milliseconds(server, is_settled=False)
    settled = [_reset_milliseconds(server, is_settled=True) for _ in range(RESETS)]
    rows: list[tuple[Cell, ...]] = [
        (f"{RESET:,}, all deployments under way", significant(under_way), None),
        (f"{RESET:,}, settled", middle(settled), significant(max(settled))),
    ]
    note = f"Median and worst of {RESETS}; the first is one reset. Aim ≤ 5 ms in the process."
    return Table("Reset of a workspace", ("endpoints", "ms", "worst ms"), rows, (note,))


def _reset_milliseconds(server: Running, *, is_settled: bool) -> float:
    token = "emu.reset"
    fill(server.port, RESET, token=token)
    if is_settled:
        settle(server, token=token)
    began = time.perf_counter()
    call(server, "POST", "/_emulator/reset", token=token)
    return (time.perf_counter() - began) * 1000


def _row(case: Case, floor: Case) -> tuple[Cell, ...]:
    return (
        case.name,
        case.endpoints,
        significant(case.alone.p50),
        significant(case.alone.p99),
        significant(case.alone.p50 - floor.alone.p50),
        significant(case.together.per_second),
        significant(case.together.p99),
        round(100 * case.together.per_second / floor.together.per_second, 1),
    )
