"""The coverage ledger tells the truth: no method without a row, no row without its witness."""

import ast
import inspect
from pathlib import Path

import httpx
import pytest
from databricks.sdk.service.serving import ServingEndpointsAPI, ServingEndpointsDataPlaneAPI
from starlette.routing import Route

from servemu.app import ROUTES
from servemu.coverage import Covered, ledger

Function = ast.FunctionDef | ast.AsyncFunctionDef

TOP = Path(__file__).parents[2]


def methods(api: type) -> set[str]:
    return {name for name, _ in inspect.getmembers(api, inspect.isfunction) if name[0] != "_"}


def test_every_serving_method_of_the_installed_sdk_has_a_row() -> None:
    expected = {f"serving_endpoints.{name}" for name in methods(ServingEndpointsAPI)}
    expected |= {
        f"serving_endpoints_data_plane.{name}" for name in methods(ServingEndpointsDataPlaneAPI)
    }
    assert expected - {row.method for row in ledger() if row.client == "databricks-sdk"} == set()


@pytest.mark.parametrize("row", ledger(), ids=lambda row: f"{row.client}:{row.method}")
def test_the_route_of_the_row_is_in_the_route_table(row: Covered) -> None:
    routes = {
        f"{method} {route.path}"
        for route in ROUTES
        if isinstance(route, Route)
        for method in route.methods or ()
    }
    assert row.route in routes


@pytest.mark.parametrize("row", ledger(), ids=lambda row: f"{row.client}:{row.method}")
def test_the_witness_of_the_row_calls_the_method(row: Covered) -> None:
    file, _, name = row.witness.partition("::")
    tree = ast.parse((TOP / file).read_text())
    functions = {
        n.name: n for n in tree.body if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    called = row.method.rpartition(".")[2]
    assert name.startswith("test_")
    assert called in names_reached(name, functions)


def names_reached(name: str, functions: dict[str, Function]) -> set[str]:
    """Attributes used by a test, by its fixtures and by the functions of its file that it calls."""
    reached: set[str] = set()
    queue, seen = [name], set()
    while queue:
        function = functions.get(current := queue.pop())
        if function is None or current in seen:
            continue
        seen.add(current)
        queue.extend(argument.arg for argument in function.args.args)
        for node in ast.walk(function):
            if isinstance(node, ast.Attribute):
                reached.add(node.attr)
            elif isinstance(node, ast.Name):
                queue.append(node.id)
    return reached


def test_the_ledger_is_answered_by_the_emulator(workspace: httpx.Client) -> None:
    shown = workspace.get("/_emulator/coverage").json()["coverage"]
    assert [row["method"] for row in shown] == [row.method for row in ledger()]
