"""`/api/2.0/mlflow`: the routes of MLflow's tracking that logging a model asks (facts/uc_registry
§2). Bodies are kept as they come: MLflow alone reads them again."""

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from servemu.errors import InvalidParameter
from servemu.registry.tracking import Document, Tracking, put_pair, put_param
from servemu.responses import json_response
from servemu.schemas.body import parse, read_body, read_object
from servemu.schemas.tracking import (
    CreateExperiment,
    CreateLoggedModel,
    CreateRun,
    FinalizeLoggedModel,
    LogBatch,
    LoggedModelParams,
    LogMetric,
    LogOutputs,
    OfRun,
    RunPair,
    SearchLoggedModels,
    SearchRuns,
    TagLoggedModel,
    UpdateRun,
)
from servemu.world import principal_of, world_of


async def create_experiment(request: Request) -> Response:
    body = await read_body(request, CreateExperiment)
    tags = [tag.shown() for tag in body.tags]
    id = _tracking(request).create_experiment(principal_of(request), body.name, tags)
    return json_response({"experiment_id": id})


async def get_experiment(request: Request) -> Response:
    """By `experiment_id`, or by `experiment_name` on the other route."""
    id = request.query_params.get("experiment_id", "")
    name = request.query_params.get("experiment_name", "")
    if not id and not name:
        raise InvalidParameter("Missing required field: experiment_id")
    workspace = principal_of(request).workspace
    found = _tracking(request).experiment(workspace, id=id, name=name)
    return json_response({"experiment": found})


async def create_run(request: Request) -> Response:
    body = await read_body(request, CreateRun)
    run = _tracking(request).create_run(principal_of(request), body.shown())
    return json_response({"run": run})


async def get_run(request: Request) -> Response:
    asked = parse(dict(request.query_params), OfRun)
    workspace = principal_of(request).workspace
    return json_response({"run": _tracking(request).get(workspace, "run", asked.id)})


async def search_runs(request: Request) -> Response:
    """Those of the experiments, newest first; filters are not emulated."""
    body = await read_body(request, SearchRuns)
    workspace = principal_of(request).workspace
    runs = _tracking(request).list_all(workspace, "run", body.experiment_ids)
    return json_response({"runs": runs[: body.max_results]})


async def update_run(request: Request) -> Response:
    body = await read_body(request, UpdateRun)
    given = body.model_dump(include={"status", "end_time", "run_name"}, exclude_none=True)
    run = _change_run(request, body.id, lambda document: document["info"].update(given))
    return json_response({"run_info": run["info"]})


async def log_parameter(request: Request) -> Response:
    body = await read_body(request, RunPair)
    _put(request, body.id, params=[body.pair()])
    return json_response({})


async def set_tag(request: Request) -> Response:
    body = await read_body(request, RunPair)
    _put(request, body.id, tags=[body.pair()])
    return json_response({})


async def log_metric(request: Request) -> Response:
    body = await read_body(request, LogMetric)
    _put(request, body.id, metrics=[body.metric()])
    return json_response({})


async def log_batch(request: Request) -> Response:
    """All of it or nothing."""
    body = await read_body(request, LogBatch)
    _put(
        request,
        body.id,
        metrics=[one.shown() for one in body.metrics],
        params=[one.shown() for one in body.params],
        tags=[one.shown() for one in body.tags],
    )
    return json_response({})


async def log_outputs(request: Request) -> Response:
    body = await read_body(request, LogOutputs)
    given = [dict(model) for model in body.models]
    _change_run(
        request, body.id, lambda document: document["outputs"]["model_outputs"].extend(given)
    )
    return json_response({})


async def accept(request: Request) -> Response:
    """What nobody reads again: `log-model`, `log-inputs`."""
    await read_object(request)
    return json_response({})


async def create_logged_model(request: Request) -> Response:
    body = await read_body(request, CreateLoggedModel)
    model = _tracking(request).create_logged_model(principal_of(request), body.shown())
    return json_response({"model": model})


async def get_logged_model(request: Request) -> Response:
    workspace, id = principal_of(request).workspace, request.path_params["id"]
    return json_response({"model": _tracking(request).get(workspace, "model", id)})


async def finalize_logged_model(request: Request) -> Response:
    body = await read_body(request, FinalizeLoggedModel)
    return _change_model(request, lambda info: info.update(status=body.status))


async def tag_logged_model(request: Request) -> Response:
    body = await read_body(request, TagLoggedModel)

    def step(info: Document) -> None:
        for tag in body.tags:
            info["tags"] = put_pair(info["tags"], tag.shown())

    return _change_model(request, step)


async def log_model_params(request: Request) -> Response:
    """Of a logged model."""
    body = await read_body(request, LoggedModelParams)
    workspace, id = principal_of(request).workspace, request.path_params["id"]

    def step(document: Document) -> None:
        for param in body.params:
            document["data"]["params"] = put_param(document["data"]["params"], param.shown())

    _tracking(request).change(workspace, "model", id, step)
    return json_response({})


async def search_logged_models(request: Request) -> Response:
    """Those of the experiments, newest first; filters are not emulated."""
    body = await read_body(request, SearchLoggedModels)
    workspace = principal_of(request).workspace
    models = _tracking(request).list_all(workspace, "model", body.experiment_ids)
    return json_response({"models": models[: body.max_results]})


def _tracking(request: Request) -> Tracking:
    return world_of(request).tracking


def _put(request: Request, run_id: str, **given: list[Document]) -> None:
    """Metrics, params and tags of a run; of a metric the last value is kept."""

    def step(document: Document) -> None:
        for kind, pairs in given.items():
            put = put_param if kind == "params" else put_pair
            for pair in pairs:
                document["data"][kind] = put(document["data"][kind], pair)

    _change_run(request, run_id, step)


def _change_run(request: Request, id: str, step: Any) -> Document:
    return _tracking(request).change(principal_of(request).workspace, "run", id, step)


def _change_model(request: Request, step: Any) -> Response:
    tracking, workspace = _tracking(request), principal_of(request).workspace
    now = tracking.now(workspace)

    def touch(document: Document) -> None:
        step(document["info"])
        document["info"]["last_updated_timestamp_ms"] = now

    model = tracking.change(workspace, "model", request.path_params["id"], touch)
    return json_response({"model": model})
