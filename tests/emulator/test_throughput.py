"""The certificate over HTTP, split traffic, sizes that are refused, and a clock a year ahead."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest

from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
Create = Callable[..., Json]
Entity = Callable[..., Json]
Advance = Callable[[float], None]
AssertFails = Callable[[httpx.Response, int, str, str], None]

B = "/api/2.0/serving-endpoints"
CERTIFICATE = "/_emulator/throughput"
ENTITY = "foundation-model-3"
MODEL = "ml.llm-catalog.foundation-model"
UNITS = "system.ai.gpt-oss-120b"
PAY_PER_TOKEN = "databricks-meta-llama-3-1-8b-instruct"
HI = [{"role": "user", "content": "Hi"}]
YEAR = 365 * 86_400
NO_WINDOWS = [
    {
        "seconds": seconds,
        "measured_seconds": 0.0,
        "provisioned": 0.0,
        "processed": 0.0,
        "delivered": 0.0,
        "demand": 0.0,
        "error_percent": None,
        "refused": 0,
    }
    for seconds in (1.0, 10.0, 60.0)
]
NOTHING = {
    "burst": None,
    "engine_bound": False,
    "in_flight": 0,
    "queue": {"requests": 0, "tokens": 0.0, "wait_p50": None, "wait_p95": None},
    "refused": 0,
    "windows": NO_WINDOWS,
}


def ask(client: httpx.Client, entity: str = "", name: str = "llama") -> int:
    """Tokens, in and out."""
    by_entity = f"served-models/{entity}/" if entity else ""
    path = f"/serving-endpoints/{name}/{by_entity}invocations"
    answer = client.post(path, json={"messages": HI, "max_tokens": 8})
    assert answer.status_code == 200, answer.text
    tokens: int = answer.json()["usage"]["total_tokens"]
    return tokens


def certificate(client: httpx.Client, name: str = "llama") -> Json:
    answer = client.get(f"{CERTIFICATE}/{name}")
    assert answer.status_code == 200, answer.text
    body: Json = answer.json()
    return body


def delivered(emulator: Emulator, client: httpx.Client, name: str = "llama") -> dict[str, float]:
    """Tokens since the start, by served entity."""
    owner = client.headers["authorization"].removeprefix("Bearer emu.")
    endpoint = emulator.world.deployments.find(owner, name)
    assert endpoint is not None and endpoint.active is not None
    find = emulator.world.router.budgets.find
    budgets = {entity.name: find(endpoint, entity.name) for entity in endpoint.active.entities}
    return {name: 0.0 if one is None else one.meter.delivered for name, one in budgets.items()}


def test_endpoint_that_does_not_serve_yet_provides_nothing(
    workspace: httpx.Client, create: Create
) -> None:
    create()
    body = certificate(workspace)
    assert body.pop("at") > 0
    assert body == {
        "endpoint": "llama",
        "config_version": None,
        "throughput_scale": 1.0,
        "provisioned": 0.0,
        "replicas": None,
        "entities": [],
        **NOTHING,
    }
    assert workspace.get(CERTIFICATE).json() == {"throughput": []}


def test_endpoint_that_nobody_asked_shows_what_it_provides(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    body = certificate(workspace)
    shown = {
        "provisioned": 2 * 1580.0,
        "replicas": {"current": 2, "minimum": 2, "maximum": 3},
        **NOTHING,
    }
    assert body["entities"] == [{"name": ENTITY, **shown}]
    assert body | shown == body
    assert workspace.get(CERTIFICATE).json()["throughput"][0]["entities"] == body["entities"]


def test_delivered_is_what_usage_says(
    emulator: Emulator, workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    tokens = ask(workspace) + ask(workspace)
    assert delivered(emulator, workspace) == {ENTITY: tokens}
    window = certificate(workspace)["windows"][2]
    assert window["delivered"] > 0
    assert window["error_percent"] is None  # two short requests do not fill a budget


def test_traffic_goes_to_the_entities_by_their_share_and_each_has_its_own_budget(
    emulator: Emulator, workspace: httpx.Client, create: Create, entity: Entity, advance: Advance
) -> None:
    shares = {"a": 0, "b": 100}
    split = [{"served_model_name": n, "traffic_percentage": p} for n, p in shares.items()]
    config = {
        "served_entities": [entity(name=n, max_provisioned_throughput=3160) for n in shares],
        "traffic_config": {"routes": split},
    }
    assert workspace.post(B, json={"name": "llama", "config": config}).status_code == 200
    advance(60)
    tokens = sum(ask(workspace) for _ in range(5))
    assert delivered(emulator, workspace) == {"a": 0, "b": tokens}
    to_a = ask(workspace, "a")
    assert delivered(emulator, workspace) == {"a": to_a, "b": tokens}
    body = certificate(workspace)
    assert [one["provisioned"] for one in body["entities"]] == [3160.0, 3160.0]
    assert body["provisioned"] == 6320.0
    assert body["replicas"] == {"current": 4, "minimum": 4, "maximum": 4}


def test_pay_per_token_is_unlimited(emulator: Emulator, workspace: httpx.Client) -> None:
    assert workspace.get(CERTIFICATE).json() == {"throughput": []}
    ask(workspace, name=PAY_PER_TOKEN)
    body = certificate(workspace, PAY_PER_TOKEN)
    assert (body["provisioned"], body["replicas"], body["config_version"]) == (None, None, None)
    assert body["windows"][2]["delivered"] > 0
    listed = workspace.get(CERTIFICATE).json()["throughput"]
    assert [one["endpoint"] for one in listed] == [PAY_PER_TOKEN]


def test_scaled_to_zero_provides_nothing(
    workspace: httpx.Client, create: Create, entity: Entity, advance: Advance
) -> None:
    create("llama", entity(scale_to_zero_enabled=True, min_provisioned_throughput=0))
    advance(10)  # up after 1.5 s, asleep after 30 idle ones
    ask(workspace)
    advance(3600)
    body = certificate(workspace)
    assert body["provisioned"] == 0.0
    assert body["replicas"] == {"current": 0, "minimum": 0, "maximum": 3}
    assert [window["provisioned"] for window in body["windows"]] == [0.0] * 3


def test_a_year_later_nothing_is_lost_and_it_still_answers(
    emulator: Emulator, workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    create()
    advance(60)
    first = ask(workspace)
    advance(YEAR)
    assert certificate(workspace)["engine_bound"] is False
    second = ask(workspace)
    assert delivered(emulator, workspace) == {ENTITY: first + second}


def test_unknown_endpoint_has_no_certificate(
    workspace: httpx.Client, assert_fails: AssertFails
) -> None:
    answer = workspace.get(f"{CERTIFICATE}/gone")
    message = "Endpoint with name 'gone' does not exist."
    assert_fails(answer, 404, "RESOURCE_DOES_NOT_EXIST", message)


def test_scaled_budgets_are_told(connect: Callable[..., httpx.Client], entity: Entity) -> None:
    half = Settings(engine="synthetic", throughput_scale=0.5)
    with serve(half, PausedClock()) as emulator, connect(emulator.url) as client:
        config = {"served_entities": [entity(max_provisioned_throughput=3160)]}
        client.post(B, json={"name": "llama", "config": config})
        client.post("/_emulator/clock/advance", json={"seconds": 60})
        body = certificate(client)
    assert (body["provisioned"], body["throughput_scale"]) == (1580.0, 0.5)


NAN, INFINITE = "NaN", "1e999"
SIZES: dict[str, tuple[str, str, str]] = {
    "zero": ("0", "0", f"max_provisioned_throughput must be greater than 0 for {MODEL}, got 0."),
    "negative": (
        "0",
        "-1580",
        f"max_provisioned_throughput must not be negative for {MODEL}, got -1580.",
    ),
    "negative minimum": (
        "-1",
        "1580",
        f"min_provisioned_throughput must not be negative for {MODEL}, got -1.",
    ),
    "minimum above maximum": (
        "3160",
        "1580",
        "min_provisioned_throughput (3160) must not be greater than "
        f"max_provisioned_throughput (1580) for {MODEL}.",
    ),
    "enormous": (
        "0",
        str(10**18),
        "max_provisioned_throughput must not be greater than 1000000000 "
        f"for {MODEL}, got {10**18}.",
    ),
}


def sized(minimum: str, maximum: str) -> str:
    """A create whose sizes are spelled as given, also in ways that no JSON library writes."""
    return (
        f'{{"name": "llama", "config": {{"served_entities": [{{"entity_name": "{MODEL}", '
        f'"entity_version": "3", "min_provisioned_throughput": {minimum}, '
        f'"max_provisioned_throughput": {maximum}}}]}}}}'
    )


@pytest.mark.parametrize(("minimum", "maximum", "message"), SIZES.values(), ids=SIZES)
def test_bad_size_is_refused_with_the_limit_and_what_was_given(
    workspace: httpx.Client, assert_fails: AssertFails, minimum: str, maximum: str, message: str
) -> None:
    answer = workspace.post(B, content=sized(minimum, maximum))
    assert_fails(answer, 400, "INVALID_PARAMETER_VALUE", message)


@pytest.mark.parametrize("size", [NAN, INFINITE, str(10**30), "1.5", "true", '"many"', "[1]"])
def test_size_that_is_no_whole_number_is_refused(workspace: httpx.Client, size: str) -> None:
    answer = workspace.post(B, content=sized("0", size))
    assert answer.status_code == 400, answer.text
    assert answer.json()["error_code"] in {"INVALID_PARAMETER_VALUE", "MALFORMED_REQUEST"}
    assert workspace.get(f"{B}/llama").status_code == 404


@pytest.mark.parametrize("units", ["0", "-50", "49", NAN, INFINITE, "1000050", str(10**18)])
def test_units_off_the_grid_or_out_of_range_are_refused(
    workspace: httpx.Client, units: str
) -> None:
    body = (
        f'{{"name": "units", "config": {{"served_entities": [{{"entity_name": "{UNITS}", '
        f'"entity_version": "1", "provisioned_model_units": {units}}}]}}}}'
    )
    answer = workspace.post(f"{B}/pt", content=body)
    assert answer.status_code == 400, answer.text
    assert workspace.get(f"{B}/units").status_code == 404


def test_the_largest_size_is_served(
    workspace: httpx.Client, create: Create, entity: Entity, advance: Advance
) -> None:
    size = 10**9
    create("llama", entity(min_provisioned_throughput=size, max_provisioned_throughput=size))
    advance(3600)
    assert ask(workspace) > 0
    assert certificate(workspace)["provisioned"] >= size
