"""MLflow's tracking routes: what logging a model asks, artifacts of MLflow 2 included."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

Json = dict[str, Any]
FAILS = Callable[[httpx.Response, int, str, str], None]
API = "/api/2.0/mlflow"


class Mlflow:
    """GET has a query, everything else a JSON body."""

    def __init__(self, client: httpx.Client) -> None:
        self.client = client

    def raw(self, method: str, path: str, /, **given: object) -> httpx.Response:
        kind = "params" if method == "GET" else "json"
        return self.client.request(method, f"{API}/{path}", **{kind: given})  # type: ignore[arg-type]

    def ask(self, method: str, path: str, /, **given: object) -> Json:
        answer = self.raw(method, path, **given)
        assert answer.status_code == 200, answer.text
        body: Json = answer.json()
        return body

    def run(self, **given: object) -> str:
        id: str = self.ask("POST", "runs/create", **given)["run"]["info"]["run_id"]
        return id

    def data(self, run: str) -> Json:
        found: Json = self.ask("GET", "runs/get", run_id=run, run_uuid=run)["run"]["data"]
        return found


@pytest.fixture
def mlflow(workspace: httpx.Client) -> Iterator[Mlflow]:
    yield Mlflow(workspace)


def pair(key: str, value: str) -> Json:
    return {"key": key, "value": value}


def test_experiment_is_found_by_id_and_by_name_and_made_once(
    mlflow: Mlflow, assert_fails: FAILS
) -> None:
    made = mlflow.ask("POST", "experiments/create", name="/Shared/a", tags=[pair("k", "v")])
    id = made["experiment_id"]
    by_id = mlflow.ask("GET", "experiments/get", experiment_id=id)["experiment"]
    by_name = mlflow.ask("GET", "experiments/get-by-name", experiment_name="/Shared/a")
    assert by_name["experiment"] == by_id
    assert by_id.pop("creation_time") == by_id.pop("last_update_time")
    assert by_id == {
        "experiment_id": id,
        "name": "/Shared/a",
        "artifact_location": f"dbfs:/databricks/mlflow-tracking/{id}",
        "lifecycle_stage": "active",
        "tags": [pair("k", "v")],
    }
    again = mlflow.raw("POST", "experiments/create", name="/Shared/a")
    message = "Node named '/Shared/a' already exists"
    assert_fails(again, 400, "RESOURCE_ALREADY_EXISTS", message)


def test_run_without_an_experiment_goes_to_the_callers_own(mlflow: Mlflow) -> None:
    first, second = mlflow.run(), mlflow.run(run_name="named")
    infos = [mlflow.ask("GET", "runs/get", run_id=run)["run"]["info"] for run in (first, second)]
    assert len({info["experiment_id"] for info in infos}) == 1
    assert (infos[1]["run_name"], infos[1]["status"]) == ("named", "RUNNING")
    own = mlflow.ask("GET", "experiments/get", experiment_id=infos[0]["experiment_id"])
    assert own["experiment"]["name"] == "/Users/me@example.com/servemu"
    found = mlflow.ask("POST", "runs/search", experiment_ids=[infos[0]["experiment_id"]])
    assert [run["info"]["run_id"] for run in found["runs"]] == [second, first]


def test_run_is_ended(mlflow: Mlflow) -> None:
    run = mlflow.run()
    info = mlflow.ask("POST", "runs/update", run_id=run, status="FINISHED", end_time="5")
    assert (info["run_info"]["status"], info["run_info"]["end_time"]) == ("FINISHED", 5)
    assert mlflow.ask("GET", "runs/get", run_id=run)["run"]["info"] == info["run_info"]


def test_metrics_params_and_tags_are_kept_one_by_one_and_in_a_batch(mlflow: Mlflow) -> None:
    run = mlflow.run(tags=[pair("t", "0")])
    mlflow.ask("POST", "runs/log-parameter", run_id=run, key="p", value="1")
    mlflow.ask("POST", "runs/set-tag", run_uuid=run, key="t", value="1")
    for value, step in ((0.5, 1), ("NaN", "2")):
        metric = {"key": "loss", "value": value, "timestamp": "7", "step": step}
        mlflow.ask("POST", "runs/log-metric", run_id=run, **metric)
    batch = {
        "metrics": [{"key": "f1", "value": 1, "timestamp": 8}],
        "params": [pair("p", "1"), pair("q", "2")],
        "tags": [pair("u", "2")],
    }
    mlflow.ask("POST", "runs/log-batch", run_id=run, **batch)
    assert mlflow.data(run) == {
        "metrics": [
            {"key": "loss", "value": "NaN", "timestamp": 7, "step": 2},
            {"key": "f1", "value": 1.0, "timestamp": 8, "step": 0},
        ],
        "params": [pair("p", "1"), pair("q", "2")],
        "tags": [pair("t", "1"), pair("u", "2")],
    }


def test_param_that_changes_is_refused_and_its_batch_with_it(
    mlflow: Mlflow, assert_fails: FAILS
) -> None:
    run = mlflow.run()
    mlflow.ask("POST", "runs/log-parameter", run_id=run, key="p", value="1")
    before = mlflow.data(run)
    batch = {"metrics": [{"key": "m", "value": 1}], "params": [pair("q", "2"), pair("p", "2")]}
    refused = mlflow.raw("POST", "runs/log-batch", run_id=run, **batch)
    message = (
        "Changing param values is not allowed. Param with key='p' was already logged with "
        "value='1'."
    )
    assert_fails(refused, 400, "INVALID_PARAMETER_VALUE", message)
    assert mlflow.data(run) == before


def test_logged_model_is_pending_then_ready_and_an_output_of_its_run(mlflow: Mlflow) -> None:
    run = mlflow.run()
    given = {"name": "m", "source_run_id": run, "params": [pair("p", "1")]}
    info = mlflow.ask("POST", "logged-models", **given)["model"]["info"]
    assert (info["status"], info["source_run_id"]) == ("LOGGED_MODEL_PENDING", run)
    path = f"logged-models/{info['model_id']}"
    mlflow.ask("PATCH", f"{path}/tags", tags=[pair("a", "1"), pair("a", "2")])
    mlflow.ask("POST", f"{path}/params", params=[pair("q", "2")])
    mlflow.ask("PATCH", path, status="LOGGED_MODEL_READY")
    for step in (0, 1):
        output = {"model_id": info["model_id"], "step": step}
        mlflow.ask("POST", "runs/outputs", run_id=run, models=[output])
    found = mlflow.ask("GET", path)["model"]
    assert found["info"]["status"] == "LOGGED_MODEL_READY"
    assert found["info"]["tags"] == [pair("a", "2")]
    assert found["data"]["params"] == [pair("p", "1"), pair("q", "2")]
    listed = mlflow.ask("POST", "logged-models/search", experiment_ids=[info["experiment_id"]])
    assert listed["models"] == [found]
    outputs = mlflow.ask("GET", "runs/get", run_id=run)["run"]["outputs"]["model_outputs"]
    assert [one["step"] for one in outputs] == [0, 1]


def test_artifacts_of_mlflow_2_go_by_signed_urls_and_are_those_of_mlflow_3(
    mlflow: Mlflow,
) -> None:
    run = mlflow.run()
    asked = {"run_id": run, "path": ["a/x.txt", "y"]}
    for info in mlflow.ask("POST", "artifacts/credentials-for-write", **asked)["credential_infos"]:
        assert httpx.put(info["signed_uri"], content=info["path"].encode()).status_code == 200
    read = mlflow.ask("POST", "artifacts/credentials-for-read", run_id=run, path="a/x.txt")
    assert httpx.get(read["credential_infos"][0]["signed_uri"]).content == b"a/x.txt"
    assert mlflow.ask("GET", "artifacts/list", run_id=run)["files"] == [
        {"path": "a", "is_dir": True},
        {"path": "y", "is_dir": False, "file_size": 1},
    ]
    inside = mlflow.ask("GET", "artifacts/list", run_id=run, path="a")["files"]
    assert inside == [{"path": "a/x.txt", "is_dir": False, "file_size": 7}]
    assert mlflow.ask("GET", "artifacts/list", run_id=run, path="none") == {"files": []}
    experiment = mlflow.ask("GET", "runs/get", run_id=run)["run"]["info"]["experiment_id"]
    root = f"/WorkspaceInternal/Mlflow/Artifacts/{experiment}/Runs/{run}/artifacts"
    assert mlflow.client.get(f"/api/2.0/fs/files{root}/a/x.txt").content == b"a/x.txt"


def test_artifact_of_mlflow_2_goes_in_parts(mlflow: Mlflow, assert_fails: FAILS) -> None:
    run = mlflow.run()
    of = {"run_id": run, "path": "big"}
    begun = mlflow.ask("POST", "artifacts/create-multipart-upload", **of, num_parts=2)
    upload = {**of, "upload_id": begun["upload_id"]}
    urls = [info["signed_uri"] for info in begun["upload_credential_infos"]]
    again = mlflow.ask("GET", "artifacts/get-presigned-upload-part-url", **upload, part_number=2)
    urls[1] = again["upload_credential_info"]["signed_uri"]
    parts = [
        {"part_number": number, "etag": httpx.put(url, content=content).headers["etag"]}
        for number, (url, content) in enumerate(zip(urls, (b"ab", b"cd"), strict=True), 1)
    ]
    other = {**upload, "path": "other"}
    foreign = mlflow.raw("GET", "artifacts/get-presigned-upload-part-url", **other)
    assert_fails(foreign, 404, "NOT_FOUND", "The upload session is not open.")
    mlflow.ask("POST", "artifacts/complete-multipart-upload", **upload, part_etags=parts)
    read = mlflow.ask("POST", "artifacts/credentials-for-read", **of)
    assert httpx.get(read["credential_infos"][0]["signed_uri"]).content == b"abcd"
    late = mlflow.raw("POST", "artifacts/complete-multipart-upload", **upload, part_etags=parts)
    assert_fails(late, 404, "NOT_FOUND", "The upload session is not open.")


def test_aborted_artifact_leaves_nothing(mlflow: Mlflow) -> None:
    run = mlflow.run()
    given = {"run_id": run, "path": "big", "num_parts": 1}
    begun = mlflow.ask("POST", "artifacts/create-multipart-upload", **given)
    part = begun["upload_credential_infos"][0]["signed_uri"]
    assert httpx.put(part, content=b"half").status_code == 200
    assert httpx.delete(begun["abort_credential_info"]["signed_uri"]).status_code == 204
    assert httpx.put(part, content=b"late").status_code == 404
    assert mlflow.ask("GET", "artifacts/list", run_id=run) == {"files": []}


NONE = "Run with id=none not found"
NO_EXPERIMENT = "Could not find experiment with ID none"


@pytest.mark.parametrize(
    ("method", "path", "given", "message"),
    [
        ("GET", "experiments/get", {"experiment_id": "none"}, NO_EXPERIMENT),
        (
            "GET",
            "experiments/get-by-name",
            {"experiment_name": "/none"},
            "Could not find experiment with name '/none'",
        ),
        ("POST", "runs/create", {"experiment_id": "none"}, NO_EXPERIMENT),
        ("POST", "logged-models", {"experiment_id": "none"}, NO_EXPERIMENT),
        ("GET", "runs/get", {"run_id": "none"}, NONE),
        ("POST", "runs/update", {"run_id": "none"}, NONE),
        ("POST", "runs/log-batch", {"run_id": "none"}, NONE),
        ("POST", "runs/outputs", {"run_id": "none"}, NONE),
        ("GET", "artifacts/list", {"run_id": "none"}, NONE),
        ("POST", "artifacts/credentials-for-write", {"run_id": "none", "path": ["x"]}, NONE),
        ("GET", "logged-models/none", {}, "Logged model with id=none not found"),
        (
            "PATCH",
            "logged-models/none",
            {"status": "LOGGED_MODEL_READY"},
            "Logged model with id=none not found",
        ),
    ],
)
def test_unknown_ids_are_not_found(
    mlflow: Mlflow, assert_fails: FAILS, method: str, path: str, given: Json, message: str
) -> None:
    answer = mlflow.raw(method, path, **given)
    assert_fails(answer, 404, "RESOURCE_DOES_NOT_EXIST", message)


@pytest.mark.parametrize(
    ("method", "path", "given", "says"),
    [
        ("GET", "runs/get", {}, "Missing required field: run_id"),
        ("GET", "experiments/get", {}, "Missing required field: experiment_id"),
        ("GET", "artifacts/list", {}, "Missing required field: run_id"),
        ("POST", "experiments/create", {}, "Missing required field: name"),
        ("POST", "experiments/create", {"name": "relative"}, "must be an absolute path"),
        ("POST", "runs/log-parameter", {"key": "k"}, "Missing required field: run_id"),
        ("POST", "runs/log-batch", {}, "Missing required field: run_id"),
        ("POST", "runs/log-metric", {"key": "k", "value": "much"}, "Invalid value for field"),
        ("POST", "runs/update", {"run_id": "r", "status": "DONE"}, "field 'status'"),
        ("PATCH", "logged-models/m", {"status": "READY"}, "field 'status'"),
        ("POST", "logged-models/m/params", {"params": "x"}, "field 'params'"),
    ],
)
def test_bad_input_is_refused(
    mlflow: Mlflow, method: str, path: str, given: Json, says: str
) -> None:
    answer = mlflow.raw(method, path, **given)
    assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")
    assert says in answer.json()["message"]


@pytest.mark.parametrize("path", ["", "../x", "/x", "a//b", "a\x00b"])
def test_artifact_stays_inside_of_its_run(mlflow: Mlflow, path: str) -> None:
    run = mlflow.run()
    asked = {"run_id": run, "path": path}
    for call in ("credentials-for-write", "create-multipart-upload"):
        answer = mlflow.raw("POST", f"artifacts/{call}", **asked, num_parts=1)
        assert (answer.status_code, answer.json()["error_code"]) == (400, "INVALID_PARAMETER_VALUE")


def test_runs_of_one_workspace_are_not_found_in_another(
    mlflow: Mlflow, emulator: Any, connect: Callable[[str], httpx.Client]
) -> None:
    run = mlflow.run()
    with connect(emulator.url) as client:
        other = Mlflow(client)
        assert other.raw("GET", "runs/get", run_id=run).status_code == 404
        assert other.raw("GET", "artifacts/list", run_id=run).status_code == 404
