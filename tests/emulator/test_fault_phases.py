"""Fault rules beyond deployments: phases, ways to set them, windows, pools, what is counted."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from servemu.clock import PausedClock
from servemu.faults.streams import split
from servemu.settings import Settings, load_settings
from servemu.testing import Emulator, serve
from servemu_engine.base import Chunk, TokenLogprob

Json = dict[str, Any]
Create = Callable[..., Json]
Advance = Callable[[float], None]

B = "/api/2.0/serving-endpoints"
FAULTS = "/_emulator/faults"
HEADER = "X-Emulator-Fault"
UP = 2.0
ASK = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 4}


@pytest.fixture
def add(workspace: httpx.Client) -> Callable[..., Json]:
    """Adds a rule; answers it as it was stored."""

    def add(**rule: object) -> Json:
        answer = workspace.post(FAULTS, json=rule)
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    return add


def statuses(workspace: httpx.Client, count: int, path: str = B) -> list[int]:
    return [workspace.get(path).status_code for _ in range(count)]


def status(code: int, **fields: object) -> Json:
    return {"type": "status", "status": code, **fields}


# --- What a rule matches, and when ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("match", "hit"),
    [
        ({"operation": "serving-endpoints.get"}, True),
        ({"operation": "serving-endpoints.*"}, True),
        ({"operation": "invocations|serving-endpoints.get"}, True),
        ({"operation": "serving-endpoints.list"}, False),
        ({"method": "GET"}, True),
        ({"method": "PUT"}, False),
        ({"path": "/api/2.0/*/llama"}, True),
        ({"path": "/serving-endpoints/*"}, False),
        ({"endpoint": "lla*"}, True),
        ({"endpoint": "other"}, False),
        ({"entity": "*"}, False),
        ({"stream": True}, False),
    ],
    ids=str,
)
def test_rule_matches_by_operation_method_path_and_endpoint(
    workspace: httpx.Client, create: Create, add: Callable[..., Json], match: Json, hit: bool
) -> None:
    create()
    add(match=match, effect=status(500))
    assert workspace.get(f"{B}/llama").status_code == (500 if hit else 200)


@pytest.mark.parametrize("path", ["/serving-endpoints/chat/completions", "permissions"])
def test_endpoint_is_known_where_only_body_or_id_tell_it(
    workspace: httpx.Client, create: Create, add: Callable[..., Json], path: str
) -> None:
    endpoint_id = create()["id"]
    create("other")
    add(match={"endpoint": "llama"}, effect=status(500))
    if path == "permissions":
        answer = workspace.get(f"/api/2.0/permissions/serving-endpoints/{endpoint_id}")
    else:
        answer = workspace.post(path, json={"model": "llama", **ASK})
    assert answer.status_code == 500
    assert workspace.get(f"{B}/other").status_code == 200


def test_state_of_the_endpoint_decides(
    workspace: httpx.Client, create: Create, add: Callable[..., Json], advance: Advance
) -> None:
    add(effect=status(503), when={"state": "IN_PROGRESS"})
    create()
    assert workspace.get(f"{B}/llama").status_code == 503
    workspace.post("/_emulator/clock/advance", json={"seconds": UP})
    assert workspace.get(f"{B}/llama").status_code == 200


def test_window_is_counted_from_the_rule_on_the_workspaces_clock(
    workspace: httpx.Client, add: Callable[..., Json], advance: Advance
) -> None:
    add(effect=status(500), when={"from": "PT10S", "until": "PT20S"})
    seen = []
    for _ in range(5):
        seen += statuses(workspace, 1)
        advance(5)
    assert seen == [200, 200, 500, 500, 200]


def test_delays_of_several_rules_add_up_and_one_error_wins(
    workspace: httpx.Client, add: Callable[..., Json]
) -> None:
    for number, effect in enumerate(
        (
            {"type": "delay", "seconds": 0.05},
            status(500),
            status(400),
            {"type": "delay", "seconds": 0.05},
        )
    ):
        add(id=f"r{number}", effect=effect)
    answer = workspace.get(B)
    assert (answer.status_code, answer.headers[HEADER]) == (500, "r0, r1, r3")
    assert answer.elapsed.total_seconds() >= 0.1
    fired = [rule["fired"] for rule in workspace.get(FAULTS).json()["faults"]]
    assert fired == [1, 1, 0, 1]


def test_switches_of_the_emulator_itself_never_fail(
    workspace: httpx.Client, add: Callable[..., Json]
) -> None:
    add(effect=status(500))
    assert workspace.get("/_emulator/clock").status_code == 200


# --- What is answered -----------------------------------------------------------------------------


def test_status_has_the_real_body_for_its_plane_and_names_its_rule(
    workspace: httpx.Client,
    add: Callable[..., Json],
    assert_fails: Callable[[httpx.Response, int, str, str], None],
) -> None:
    add(id="mine", effect=status(503, retry_after=7, headers={"x-should-retry": "false"}))
    control = workspace.get(B)
    unavailable = "The service is temporarily unavailable."
    assert_fails(control, 503, "TEMPORARILY_UNAVAILABLE", unavailable)
    shown = [control.headers[name] for name in (HEADER, "Retry-After", "x-should-retry")]
    assert shown == ["mine", "7", "false"]
    data = workspace.post("/serving-endpoints/llama/invocations", json=ASK)
    assert data.json() == {"error_code": "TEMPORARILY_UNAVAILABLE", "message": unavailable}


@pytest.mark.parametrize(
    ("body", "media_type", "text"),
    [
        ("upstream", "text/plain; charset=utf-8", "upstream"),
        ({"error": {"code": 1}}, "application/json", '{"error":{"code":1}}'),
    ],
)
def test_body_of_a_status_may_be_anything(
    workspace: httpx.Client, add: Callable[..., Json], body: object, media_type: str, text: str
) -> None:
    add(effect=status(502, body=body))
    answer = workspace.get(B)
    assert (answer.headers["content-type"], answer.text) == (media_type, text)


def test_refused_write_is_not_lost_after_commit(
    workspace: httpx.Client, create: Create, add: Callable[..., Json], entity: Callable[..., Json]
) -> None:
    create()
    rule = add(preset="create-lost")
    body = {"name": "llama", "config": {"served_entities": [entity()]}}
    assert workspace.post(B, json=body).status_code == 409
    assert workspace.get(f"{FAULTS}/{rule['id']}").json()["matched"] == 0


def test_reset_in_the_middle_of_a_body_cuts_it_there(
    workspace: httpx.Client, add: Callable[..., Json]
) -> None:
    add(effect={"type": "reset", "after_bytes": 10})
    got = b""
    with pytest.raises(httpx.ReadError), workspace.stream("GET", B) as answer:
        for part in answer.iter_raw():
            got += part
    assert len(got) <= 10


# --- Ways to set a rule ---------------------------------------------------------------------------


def test_header_hits_this_request_alone_and_beats_stored_rules(
    workspace: httpx.Client, add: Callable[..., Json]
) -> None:
    add(effect=status(500), when={"skip": 1})
    answer = workspace.get(B, headers={HEADER: "status=429;retry-after=2"})
    shown = (answer.status_code, answer.headers["Retry-After"], answer.headers[HEADER])
    assert shown == (429, "2", "header")
    assert statuses(workspace, 2) == [200, 500]


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("fire", "Neither an effect nor a preset: 'fire'. Effects: "),
        ("status=abc", "'effect.status'"),
        ("status", "Missing required field: effect.status"),
        ("hang=1", "The effect 'hang' takes no value, got '1'."),
        ("cut=1;phase=request", "'phase': the effect 'cut' needs 'stream'"),
        ("delay=nan", "'effect.seconds'"),
        ("delay=1;for", "'for' is no field=value."),
        ("", "Neither an effect nor a preset: ''"),
    ],
)
def test_bad_header_is_refused_by_name(workspace: httpx.Client, text: str, named: str) -> None:
    answer = workspace.get(B, headers={HEADER: text})
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    message = answer.json()["message"]
    assert message.startswith("Invalid value for header 'X-Emulator-Fault': ") and named in message


def test_header_of_a_create_fails_its_deployment(
    workspace: httpx.Client, entity: Callable[..., Json], advance: Advance
) -> None:
    body = {"name": "llama", "config": {"served_entities": [entity()]}}
    made = workspace.post(B, json=body, headers={HEADER: "no-gpu-capacity;after=PT10M"})
    assert made.headers[HEADER] == "header"
    advance(10)
    assert workspace.get(f"{B}/llama").json()["state"]["config_update"] == "UPDATE_FAILED"


def test_tag_is_a_rule_about_its_endpoint_as_long_as_both_are_there(
    workspace: httpx.Client, create: Create, advance: Advance
) -> None:
    tags = [{"key": "emulator-fault", "value": "no-gpu-capacity"}]
    create(tags=tags)
    create("other")
    advance(29)
    state = {n: workspace.get(f"{B}/{n}").json()["state"]["ready"] for n in ("llama", "other")}
    assert state == {"llama": "NOT_READY", "other": "READY"}
    [rule] = workspace.get(FAULTS).json()["faults"]
    assert (rule["id"], rule["fired"], rule["match"]["endpoint"]) == ("tag-llama", 1, "llama")
    workspace.patch(f"{B}/other/tags", json={"add_tags": tags})
    assert len(workspace.get(FAULTS).json()["faults"]) == 2
    workspace.patch(f"{B}/other/tags", json={"delete_tags": ["emulator-fault"]})
    workspace.delete(f"{B}/llama")
    assert workspace.get(FAULTS).json() == {"faults": []}


def test_tag_can_refuse_or_lose_the_create_that_brings_it(
    workspace: httpx.Client, entity: Callable[..., Json]
) -> None:
    config = {"served_entities": [entity()]}
    seen = []
    for name, preset in (("refused", "quota-exceeded"), ("lost", "create-lost"), ("bad", "fire")):
        tags = [{"key": "emulator-fault", "value": preset}]
        body = {"name": name, "config": config, "tags": tags}
        made = workspace.post(B, json=body).status_code
        seen.append((made, workspace.get(f"{B}/{name}").status_code))
    assert seen == [(400, 404), (504, 200), (400, 404)]


def test_rules_of_the_config_file_are_in_every_workspace(
    tmp_path: Path, connect: Callable[[str], httpx.Client]
) -> None:
    file = tmp_path / "servemu.toml"
    file.write_text(
        'engine = "synthetic"\n[[faults]]\npreset = "api-slow"\neffect.seconds = 0.001\n'
    )
    with serve(load_settings(file), PausedClock()) as emulator:
        for _ in range(2):
            with connect(emulator.url) as client:
                assert client.get(B).headers[HEADER] == "config-1"
                [rule] = client.get(FAULTS).json()["faults"]
                assert (rule["id"], rule["fired"]) == ("config-1", 1)


# --- Lists, and what is refused -------------------------------------------------------------------

FINE = {"id": "a", "effect": status(500)}


@pytest.mark.parametrize("wrapped", [True, False])
def test_list_of_rules_is_added_whole(workspace: httpx.Client, wrapped: bool) -> None:
    rules = [FINE, {"preset": "api-slow"}, {"preset": "api-slow"}]
    answer = workspace.post(FAULTS, json={"faults": rules} if wrapped else rules)
    assert [rule["id"] for rule in answer.json()["faults"]] == ["a", "api-slow-1", "api-slow-2"]
    assert workspace.get(FAULTS).json() == answer.json()


@pytest.mark.parametrize(
    ("second", "named"),
    [
        ({"effect": {"type": "fire"}}, "faults[1]: Invalid value for field 'effect.type'"),
        (FINE, "Invalid value for field 'faults[1].id': another rule has it"),
        ({}, "faults[1]: Missing required field: effect"),
        (3, "Invalid value for field 'faults'"),
    ],
)
def test_list_with_a_bad_rule_adds_none(
    workspace: httpx.Client, second: object, named: str
) -> None:
    answer = workspace.post(FAULTS, json=[FINE, second])
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert answer.json()["message"].startswith(named)
    assert workspace.get(FAULTS).json() == {"faults": []}
    assert workspace.get(B).status_code == 200


def test_probability_that_is_no_number_is_refused_by_name(workspace: httpx.Client) -> None:
    text = '{"preset": "api-slow", "when": {"probability": NaN}}'
    message = workspace.post(FAULTS, content=text).json()["message"]
    assert message.startswith("Invalid value for field 'when.probability': ")


# --- Capacity -------------------------------------------------------------------------------------


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
    workspace: httpx.Client, create: Create, add: Callable[..., Json], advance: Advance
) -> None:
    rule = add(effect={"type": "shrink", "replicas": 0}, when={"until": "PT10S"})
    create()
    advance(5)
    assert ready(workspace, "llama") == "NOT_READY IN_PROGRESS"
    assert workspace.get(f"{FAULTS}/{rule['id']}").json()["fired"] == 1
    advance(5)
    advance(UP)
    assert ready(workspace, "llama") == "READY NOT_UPDATING"


# --- Streams --------------------------------------------------------------------------------------


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
    workspace: httpx.Client, create: Create, add: Callable[..., Json], advance: Advance
) -> None:
    create()
    advance(UP)
    rule = add(effect={"type": "cut", "after_tokens": 50}, when={"times": 1})
    path = "/serving-endpoints/llama/invocations"
    assert "[DONE]" in workspace.post(path, json={**ASK, "stream": True}).text
    ledger = workspace.get(f"{FAULTS}/{rule['id']}").json()
    assert (ledger["matched"], ledger["fired"], ledger["remaining"]) == (1, 0, 1)


def test_fault_of_a_stream_spares_whole_answers(
    workspace: httpx.Client, create: Create, add: Callable[..., Json], advance: Advance
) -> None:
    create()
    advance(UP)
    add(preset="mid-stream-cut", effect={"after_tokens": 0})
    path = "/serving-endpoints/llama/invocations"
    assert workspace.post(path, json=ASK).status_code == 200


def test_entity_of_a_split_that_is_down_fails_its_share_alone(
    workspace: httpx.Client, add: Callable[..., Json], entity: Callable[..., Json], advance: Advance
) -> None:
    routes = [
        {"served_entity_name": name, "traffic_percentage": 50} for name in ("stable", "canary")
    ]
    entities = [entity(name="stable"), entity(name="canary")]
    config = {"served_entities": entities, "traffic_config": {"routes": routes}}
    workspace.post(B, json={"name": "llama", "config": config})
    advance(UP)
    add(preset="entity-down", match={"entity": "canary"})
    base = "/serving-endpoints/llama/served-models"
    seen = [
        workspace.post(f"{base}/{name}/invocations", json=ASK).status_code
        for name in ("stable", "canary")
    ]
    assert seen == [200, 503]


def test_workspace_is_spared_by_the_rules_of_another(
    emulator: Emulator, connect: Callable[[str], httpx.Client], add: Callable[..., Json]
) -> None:
    add(effect=status(500))
    with connect(emulator.url) as other:
        assert other.get(B).status_code == 200
