"""Registered models and their files: workspaces apart, races, a reset, a restart."""

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from servemu.clock import PausedClock
from servemu.errors import UploadNotFound
from servemu.operation import OTHER, operation_of
from servemu.registry.files import ArtifactFiles, Place, check_path
from servemu.registry.lookup import serving_folder
from servemu.registry.routes import REGISTRY
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]
FAILS = Callable[[httpx.Response, int, str, str], None]
MLFLOW = "/api/2.0/mlflow/unity-catalog"
FILES = "/api/2.0/fs/files"
ROOT = "/Models/c/s/m/1"
RUN = "/WorkspaceInternal/Mlflow/Artifacts"
NAMED = {"name": "c.s.m", "version": "1"}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("guarded")


@pytest.fixture(scope="module")
def on_disk(store: Path) -> Iterator[Emulator]:
    settings = Settings(engine="synthetic", artifacts=store)
    with serve(settings, PausedClock()) as emulator:
        yield emulator


@pytest.fixture
def client(on_disk: Emulator, connect: Connect) -> Iterator[httpx.Client]:
    with connect(on_disk.url) as client:
        register(client)
        yield client
        client.post("/_emulator/reset")


def register(client: httpx.Client) -> None:
    """`c.s.m`, whose version 1 waits for files."""
    client.post(MLFLOW + "/registered-models/create", json={"name": "c.s.m"})
    client.post(MLFLOW + "/model-versions/create", json={"name": "c.s.m"})


def finalize(client: httpx.Client) -> httpx.Response:
    return client.post(MLFLOW + "/model-versions/finalize", json=NAMED)


@pytest.fixture
def slow(client: httpx.Client, store: Path) -> Iterator[Callable[[], httpx.Response]]:
    """A PUT of `ROOT/late` that has begun; what is yielded lets it end."""
    go = threading.Event()
    answers: list[httpx.Response] = []

    def chunks() -> Iterator[bytes]:
        yield b"first"
        go.wait()
        yield b"last"

    def put() -> None:
        answers.append(client.put(f"{FILES}{ROOT}/late", content=chunks()))

    thread = threading.Thread(target=put)
    thread.start()
    while not any((store / ".incoming").glob("*.part")):
        pass

    def end() -> httpx.Response:
        go.set()
        thread.join()
        return answers[0]

    yield end
    end()


def test_token_that_names_a_path_reaches_no_file_of_the_machine(
    on_disk: Emulator, connect: Connect, tmp_path: Path
) -> None:
    (tmp_path / "secret").write_text("s")
    with connect(on_disk.url, f"emu.{tmp_path}") as client:
        assert client.get(f"{FILES}{RUN}/secret").status_code == 404
        assert client.put(f"{FILES}{RUN}/made", content=b"x").status_code == 204
        client.post("/_emulator/reset")
    assert [path.name for path in tmp_path.iterdir()] == ["secret"]


def test_workspace_reads_no_runs_of_another(on_disk: Emulator, connect: Connect) -> None:
    with connect(on_disk.url, "emu.a/b") as inner, connect(on_disk.url, "emu.a") as outer:
        assert inner.put(f"{FILES}{RUN}/x", content=b"x").status_code == 204
        assert outer.get(f"{FILES}{RUN}/b/x").status_code == 404
        assert outer.get(f"{FILES}{RUN}/x").status_code == 404


def test_upload_of_one_workspace_is_not_open_to_another(
    on_disk: Emulator, client: httpx.Client, connect: Connect
) -> None:
    begun = client.post(f"{FILES}{ROOT}/x", params={"action": "initiate-upload"}).json()
    token = begun["multipart_upload"]["session_token"]
    with connect(on_disk.url) as other:
        register(other)
        asked = {"path": f"{ROOT}/x", "session_token": token}
        for kind in ("upload-part-urls", "abort-upload-url"):
            refused = other.post(f"/api/2.0/fs/create-{kind}", json=asked)
            assert (refused.status_code, refused.json()["error_code"]) == (404, "NOT_FOUND")
        query = {"action": "complete-upload", "session_token": token}
        refused = other.post(f"{FILES}{ROOT}/x", params=query, json={"parts": []})
        assert (refused.status_code, refused.json()["error_code"]) == (404, "NOT_FOUND")


@pytest.mark.parametrize("path", [ROOT, f"{ROOT}/", RUN])
@pytest.mark.parametrize("method", ["PUT", "DELETE", "POST"])
def test_folder_of_a_version_or_of_all_runs_is_no_file(
    client: httpx.Client, method: str, path: str
) -> None:
    assert client.put(f"{FILES}{path.rstrip('/')}/kept", content=b"x").status_code == 204
    query = {"action": "initiate-upload"} if method == "POST" else {}
    answer = client.request(method, FILES + path, params=query)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert client.get(f"{FILES}{path.rstrip('/')}/kept").content == b"x"


def test_delete_takes_files_and_no_folders(client: httpx.Client) -> None:
    client.put(f"{FILES}{ROOT}/a/x", content=b"x")
    answer = client.delete(f"{FILES}{ROOT}/a")
    assert (answer.status_code, answer.json()["error_code"]) == (404, "NOT_FOUND")
    assert client.get(f"{FILES}{ROOT}/a/x").content == b"x"


def test_head_of_a_signed_url_is_what_its_get_would_be(client: httpx.Client) -> None:
    client.put(f"{FILES}{ROOT}/x", content=b"12345")
    answer = client.post("/api/2.0/fs/create-download-url", json={"path": f"{ROOT}/x"})
    head = httpx.head(answer.json()["url"])
    assert (head.status_code, head.headers["content-length"]) == (200, "5")


def test_version_is_not_ready_while_a_file_is_on_its_way(
    client: httpx.Client, slow: Callable[[], httpx.Response], assert_fails: FAILS
) -> None:
    client.put(f"{FILES}{ROOT}/MLmodel", content=b"{}")
    message = "An upload of this model version is not complete."
    assert_fails(finalize(client), 400, "INVALID_PARAMETER_VALUE", message)
    assert slow().status_code == 204
    assert finalize(client).status_code == 200


def test_file_that_arrives_after_its_model_was_deleted_is_dropped(
    client: httpx.Client, slow: Callable[[], httpx.Response], store: Path
) -> None:
    deleted = client.request("DELETE", MLFLOW + "/registered-models/delete", json={"name": "c.s.m"})
    assert deleted.status_code == 200
    late = slow()
    assert (late.status_code, late.json()["error_code"]) == (404, "NOT_FOUND")
    assert not any(store.rglob("late"))


def test_reset_takes_runs_with_their_artifacts(client: httpx.Client, store: Path) -> None:
    client.put(f"{FILES}{RUN}/1/of-run", content=b"x")
    run = client.post("/api/2.0/mlflow/runs/create", json={}).json()["run"]["info"]["run_id"]
    client.post("/_emulator/reset")
    assert not any(store.rglob("of-run"))
    assert client.get("/api/2.0/mlflow/runs/get", params={"run_id": run}).status_code == 404
    assert client.get(f"{FILES}{RUN}/1/of-run").status_code == 404


def test_versions_made_at_once_get_different_numbers(client: httpx.Client) -> None:
    numbers: list[str] = []

    def make() -> None:
        answer = client.post(MLFLOW + "/model-versions/create", json={"name": "c.s.m"})
        numbers.append(answer.json()["model_version"]["version"])

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(numbers, key=int) == [str(number) for number in range(2, 10)]


def test_rename_that_is_refused_changes_nothing(client: httpx.Client) -> None:
    client.post(MLFLOW + "/registered-models/create", json={"name": "c.s.taken"})
    body = {"new_name": "taken", "comment": "new", "owner": "ann@example.com"}
    answer = client.patch("/api/2.1/unity-catalog/models/c.s.m", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "RESOURCE_ALREADY_EXISTS")
    found = client.get("/api/2.1/unity-catalog/models/c.s.m").json()
    assert (found["comment"], found["owner"]) == ("", "me@example.com")


def test_name_that_comes_again_has_files_of_its_own(client: httpx.Client) -> None:
    client.put(f"{FILES}{ROOT}/MLmodel", content=b"first")
    assert finalize(client).status_code == 200
    client.request("DELETE", MLFLOW + "/registered-models/delete", json={"name": "c.s.m"})
    register(client)
    assert client.get(f"{FILES}{ROOT}/MLmodel").status_code == 404


def test_ready_version_is_there_after_a_restart(tmp_path: Path, connect: Connect) -> None:
    settings = Settings(engine="synthetic", database=str(tmp_path / "a.db"))
    for start in ("first", "second"):
        with serve(settings, PausedClock()) as emulator, connect(emulator.url, "emu.r") as client:
            if start == "first":
                register(client)
                client.put(f"{FILES}{ROOT}/MLmodel", content=b"{}")
                assert finalize(client).status_code == 200
            shown = client.get(MLFLOW + "/model-versions/get", params=NAMED).json()
            assert shown["model_version"]["status"] == "READY"
            assert client.get(f"{FILES}{ROOT}/MLmodel").content == b"{}"


def test_serving_folder_made_by_two_at_once_is_whole(tmp_path: Path) -> None:
    upload = tmp_path / "1"
    for part, name in (("model", "config.json"), ("components/tokenizer", "tokenizer.json")):
        (upload / part).mkdir(parents=True)
        (upload / part / name).write_text(name)
    folders: list[Path] = []
    threads = [
        threading.Thread(target=lambda: folders.append(serving_folder(upload))) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {folder.name for folder in folders} == {"1.serving"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "1.serving"]
    for name in ("config.json", "tokenizer.json"):
        assert (folders[0] / name).read_text() == name


async def chunk() -> Any:
    yield b"x"


@pytest.mark.anyio
async def test_upload_is_completed_once_and_a_part_comes_too_late(tmp_path: Path) -> None:
    files, place = ArtifactFiles(tmp_path), Place(("models", "id", "1"), check_path("big"))
    token = files.begin(place)
    etags = [(n, await files.write_part(token, n, chunk())) for n in (1, 2)]
    outcomes: list[str] = []

    def complete() -> None:
        try:
            files.complete(token, place, etags)
            outcomes.append("done")
        except UploadNotFound as error:
            outcomes.append(type(error).__name__)

    threads = [threading.Thread(target=complete) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["UploadNotFound"] * 3 + ["done"]
    assert files.find(place).read_bytes() == b"xx"
    assert list((tmp_path / ".incoming").iterdir()) == []


@pytest.mark.parametrize(
    "alias", ["", "1", "v2", "V2", "latest", "LATEST", "a b", "a/b", "x" * 256]
)
def test_alias_that_mlflow_refuses_is_refused(client: httpx.Client, alias: str) -> None:
    body = {**NAMED, "alias": alias}
    answer = client.post(MLFLOW + "/registered-models/alias", json=body)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert client.get("/api/2.1/unity-catalog/models/c.s.m").json()["aliases"] == []


def test_fault_rules_name_the_calls_of_the_registry(client: httpx.Client) -> None:
    rule = {
        "match": {"operation": "registry.create_model_version"},
        "when": {"times": 1},
        "phase": "request",
        "effect": {"type": "status", "status": 503, "error_code": "TEMPORARILY_UNAVAILABLE"},
    }
    assert client.post("/_emulator/faults", json=rule).status_code == 200
    create = (MLFLOW + "/model-versions/create", {"name": "c.s.m"})
    refused = client.post(create[0], json=create[1])
    assert (refused.status_code, refused.json()["error_code"]) == (503, "TEMPORARILY_UNAVAILABLE")
    made = client.post(create[0], json=create[1])
    assert made.json()["model_version"]["version"] == "2"
    requests = client.get("/_emulator/requests").json()["requests"]
    assert {one["operation"] for one in requests} >= {"registry.create_model_version"}


def test_every_route_of_registry_and_tracking_has_a_name() -> None:
    signed_or_own = ("/presigned", "/_emulator")
    routes = [route for route in REGISTRY if not route.path.startswith(signed_or_own)]
    unnamed = [
        (method, route.path)
        for route in routes
        for method in route.methods or ()
        if method != "HEAD" and operation_of(method, route.path.replace(":path", "")) == OTHER
    ]
    assert (unnamed, len(routes) > 60) == ([], True)


@pytest.mark.parametrize("mlmodel", ["a: [\nb: }", "flavors: {transformers: {task: '日本\\n'}}"])
def test_mlmodel_that_cannot_be_used_is_said_in_one_line(
    client: httpx.Client, mlmodel: str
) -> None:
    client.put(f"{FILES}{ROOT}/MLmodel", content=mlmodel.encode())
    assert finalize(client).status_code == 200
    answer = client.get("/api/2.0/serving-endpoints/get-model-optimization-info/c.s.m/1")
    assert answer.json() == {"optimizable": False}
    assert "cannot be served" in answer.headers["x-emulator-why"]
    assert "\n" not in answer.headers["x-emulator-why"]


PT = {
    "name": "e",
    "config": {"served_entities": [{"entity_name": "c.s.m", "provisioned_model_units": 50}]},
}
INSTALL = "/_emulator/listings/gpt-oss-20b/install"


def test_newest_ready_version_is_meant_where_none_is_named(
    client: httpx.Client, assert_fails: FAILS
) -> None:
    early = client.post("/api/2.0/serving-endpoints/pt", json=PT)
    waits = "Model Version (name='c.s.m', version=1) is not READY: PENDING_REGISTRATION."
    assert_fails(early, 400, "INVALID_PARAMETER_VALUE", waits)
    assert client.post(INSTALL, json={"name": "c.s.m"}).json()["version"] == 2
    client.post(MLFLOW + "/model-versions/create", json={"name": "c.s.m"})
    made = client.post("/api/2.0/serving-endpoints/pt", json=PT)
    assert made.status_code == 200, made.text
    entities = made.json()["pending_config"]["served_entities"]
    assert [one["entity_version"] for one in entities] == ["2"]


def test_endpoint_of_a_snapshot_whose_model_was_deleted_fails_clearly(
    client: httpx.Client,
) -> None:
    client.post(INSTALL, json={"name": "c.s.m"})
    assert client.post("/api/2.0/serving-endpoints/pt", json=PT).status_code == 200
    assert client.post("/_emulator/snapshots/s", json={}).status_code == 200
    assert client.delete("/api/2.0/serving-endpoints/e").status_code == 200
    named = {"name": "c.s.m"}
    gone = client.request("DELETE", MLFLOW + "/registered-models/delete", json=named)
    assert gone.status_code == 200
    assert client.post("/_emulator/snapshots/s/restore").status_code == 200
    while (found := client.get("/api/2.0/serving-endpoints/e").json())["state"][
        "config_update"
    ] == "IN_PROGRESS":
        client.post("/_emulator/clock/advance", json={"seconds": 3600})
    assert found["state"]["config_update"] == "UPDATE_FAILED"
    entity = found["pending_config"]["served_entities"][0]
    assert "c.s.m" in entity["state"]["deployment_state_message"]


def test_endpoint_of_a_registered_model_goes_on_after_a_restart(
    tmp_path: Path, connect: Connect
) -> None:
    settings = Settings(engine="synthetic", database=str(tmp_path / "a.db"))
    described = {
        "flavors": {"transformers": {"inference_task": "llm/v1/chat"}},
        "mlflow_version": "3.17.2",
        "signature": {"inputs": "[]"},
    }
    uploaded = {
        "MLmodel": json.dumps(described),
        "model/config.json": json.dumps({"model_type": "llama"}),
        "model/model.safetensors": "",
    }
    clock, url = PausedClock(), "/api/2.0/serving-endpoints"
    with serve(settings, clock) as emulator, connect(emulator.url, "emu.r") as client:
        register(client)
        for path, content in uploaded.items():
            client.put(f"{FILES}{ROOT}/{path}", content=content.encode())
        assert finalize(client).status_code == 200
        info = client.get(f"{url}/get-model-optimization-info/c.s.m/1").json()
        chunk = info["throughput_chunk_size"]
        entity: Json = {"entity_name": "c.s.m", "entity_version": "1"}
        entity |= {"min_provisioned_throughput": 0, "max_provisioned_throughput": chunk}
        body = {"name": "e", "config": {"served_entities": [entity]}}
        assert client.post(url, json=body).status_code == 200
    with serve(settings, clock) as emulator, connect(emulator.url, "emu.r") as client:
        while (found := client.get(f"{url}/e").json()["state"])["config_update"] == "IN_PROGRESS":
            client.post("/_emulator/clock/advance", json={"seconds": 3600})
        assert found["ready"] == "READY"
        ask = {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
        assert client.post("/serving-endpoints/e/invocations", json=ask).status_code == 200
