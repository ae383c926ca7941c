"""Fault rules of pools of replicas, of streams and of one entity of a split."""

from collections.abc import Callable
from typing import Any

import httpx
from tests.fault_rules import ASK, FAULTS, UP, B, status

from servemu.clock import PausedClock
from servemu.faults.streams import split
from servemu.settings import Settings
from servemu.testing import Emulator, serve
from servemu_engine.base import Chunk, TokenLogprob

Json = dict[str, Any]
Create = Callable[..., Json]
Advance = Callable[[float], None]


def ready(client: httpx.Client, name: str) -> str:
    state = client.get(f"{B}/{name}").json()["state"]
    return f"{state['ready']} {state['config_update']}"


def test_pool_that_is_empty_holds_a_deployment_until_a_replica_comes_free(
    connect: Callable[[str], httpx.Client], entity: Callable[..., Json]
) -> None:
    settings = Settings(engine="synthetic", capacity={"GPU_XLARGE_8": 2})
    body = {"served_entities": [entity()]}  # two replicas
    with serve(settings, PausedClock()) as emulator, connect(emulator.url) as client:

        def advance(seconds: float) -> None:
            client.post("/_emulator/clock/advance", json={"seconds": seconds})

        for name in ("first", "second", "third"):
            client.post(B, json={"name": name, "config": body})
            advance(0.125)
        advance(10)
        names = ("first", "second", "third")
        held = "NOT_READY IN_PROGRESS"
        assert [ready(client, name) for name in names] == ["READY NOT_UPDATING", held, held]
        client.delete(f"{B}/first")
        advance(10)
        assert [ready(client, name) for name in names[1:]] == ["READY NOT_UPDATING", held]
        advance(29)
        assert ready(client, "third") == "NOT_READY UPDATE_FAILED"


def test_shrunk_pool_counts_the_deployments_it_holds_and_lets_them_go_when_it_is_over(
    workspace: httpx.Client, create: Create, add_fault: Callable[..., Json], advance: Advance
) -> None:
    rule = add_fault(effect={"type": "shrink", "replicas": 0}, when={"until": "PT10S"})
    create()
    advance(5)
    assert ready(workspace, "llama") == "NOT_READY IN_PROGRESS"
    assert workspace.get(f"{FAULTS}/{rule['id']}").json()["fired"] == 1
    advance(5)
    advance(UP)
    assert ready(workspace, "llama") == "READY NOT_UPDATING"


def test_chunk_is_split_at_the_token_by_its_logprobs_or_in_proportion() -> None:
    logprobs = tuple(TokenLogprob(text, text.encode(), -1.0) for text in ("a", "bcd", "e"))
    exact = split(Chunk(0, "abcde", 3, logprobs, "stop"), 2)
    assert exact == (
        Chunk(0, "abcd", 2, logprobs[:2]),
        Chunk(0, "e", 1, logprobs[2:], "stop"),
    )
    first, rest = split(Chunk(0, "abcdef", 3), 1)
    assert (first.text, first.num_tokens, rest.text, rest.num_tokens) == ("ab", 1, "cdef", 2)


def test_stream_that_ends_before_the_faults_token_gives_the_fault_back(
    workspace: httpx.Client, create: Create, add_fault: Callable[..., Json], advance: Advance
) -> None:
    create()
    advance(UP)
    rule = add_fault(effect={"type": "cut", "after_tokens": 50}, when={"times": 1})
    path = "/serving-endpoints/llama/invocations"
    assert "[DONE]" in workspace.post(path, json={**ASK, "stream": True}).text
    ledger = workspace.get(f"{FAULTS}/{rule['id']}").json()
    assert (ledger["matched"], ledger["fired"], ledger["remaining"]) == (1, 0, 1)


def test_fault_of_a_stream_spares_whole_answers(
    workspace: httpx.Client, create: Create, add_fault: Callable[..., Json], advance: Advance
) -> None:
    create()
    advance(UP)
    add_fault(preset="mid-stream-cut", effect={"after_tokens": 0})
    path = "/serving-endpoints/llama/invocations"
    assert workspace.post(path, json=ASK).status_code == 200


def test_entity_of_a_split_that_is_down_fails_its_share_alone(
    workspace: httpx.Client,
    add_fault: Callable[..., Json],
    entity: Callable[..., Json],
    advance: Advance,
) -> None:
    routes = [
        {"served_entity_name": name, "traffic_percentage": 50} for name in ("stable", "canary")
    ]
    entities = [entity(name="stable"), entity(name="canary")]
    config = {"served_entities": entities, "traffic_config": {"routes": routes}}
    workspace.post(B, json={"name": "llama", "config": config})
    advance(UP)
    add_fault(preset="entity-down", match={"entity": "canary"})
    base = "/serving-endpoints/llama/served-models"
    seen = [
        workspace.post(f"{base}/{name}/invocations", json=ASK).status_code
        for name in ("stable", "canary")
    ]
    assert seen == [200, 503]


def test_workspace_is_spared_by_the_rules_of_another(
    emulator: Emulator, connect: Callable[[str], httpx.Client], add_fault: Callable[..., Json]
) -> None:
    add_fault(effect=status(500))
    with connect(emulator.url) as other:
        assert other.get(B).status_code == 200
