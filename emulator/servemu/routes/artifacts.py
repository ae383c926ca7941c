"""Artifacts of runs as MLflow 2 asks for them: signed URLs a file (facts/uc_registry §2)."""

import asyncio
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from servemu.errors import ArtifactNotFound, InvalidParameter
from servemu.registry.files import Place
from servemu.registry.places import place_of
from servemu.registry.signing import Permit
from servemu.responses import json_response
from servemu.schemas.body import parse, read_body
from servemu.schemas.tracking import (
    ArtifactCredentials,
    ArtifactPart,
    CompleteArtifactUpload,
    CreateArtifactUpload,
    OfRun,
)
from servemu.world import principal_of, world_of

KIND = "AWS_PRESIGNED_URL"
"""MLflow then PUTs and GETs it plainly, over http too."""


async def credentials_for_write(request: Request) -> Response:
    return await _credentials(request, "PUT")


async def credentials_for_read(request: Request) -> Response:
    return await _credentials(request, "GET")


async def _credentials(request: Request, method: str) -> Response:
    body = await read_body(request, ArtifactCredentials)
    infos = [_info(request, body, path, Permit(method, "", "")) for path in body.path]
    return json_response({"credential_infos": infos})


async def list_artifacts(request: Request) -> Response:
    """The entries of a folder of the run; of one that is not there: none."""
    asked = parse(dict(request.query_params), OfRun)
    inside = request.query_params.get("path", "").strip("/")
    try:
        folder = world_of(request).files.find(_place(request, asked, inside))
    except ArtifactNotFound:
        return json_response({"files": []})
    entries = sorted(folder.iterdir()) if folder.is_dir() else []
    files = [
        {"path": f"{inside}/{entry.name}".lstrip("/"), "is_dir": True}
        if entry.is_dir()
        else {
            "path": f"{inside}/{entry.name}".lstrip("/"),
            "is_dir": False,
            "file_size": entry.stat().st_size,
        }
        for entry in entries
    ]
    return json_response({"files": files})


async def create_multipart(request: Request) -> Response:
    body = await read_body(request, CreateArtifactUpload)
    token = world_of(request).files.begin(_place(request, body, body.path))
    infos = [
        _info(request, body, body.path, Permit("PUT", "", "", token, number))
        for number in range(1, body.num_parts + 1)
    ]
    abort = _info(request, body, body.path, Permit("DELETE", "", "", token))
    return json_response(
        {"upload_id": token, "upload_credential_infos": infos, "abort_credential_info": abort}
    )


async def part_url(request: Request) -> Response:
    asked = parse(dict(request.query_params), ArtifactPart)
    world_of(request).files.upload(asked.upload_id, _place(request, asked, asked.path))
    permit = Permit("PUT", "", "", asked.upload_id, asked.part_number)
    return json_response({"upload_credential_info": _info(request, asked, asked.path, permit)})


async def complete_multipart(request: Request) -> Response:
    body = await read_body(request, CompleteArtifactUpload)
    parts = [(part.part_number, part.etag) for part in body.part_etags]
    place = _place(request, body, body.path)
    await asyncio.to_thread(world_of(request).files.complete, body.upload_id, place, parts)
    return json_response({})


def _info(request: Request, run: OfRun, path: str, permit: Permit) -> dict[str, Any]:
    world, workspace = world_of(request), principal_of(request).workspace
    full = _full(request, run, path)
    if permit.method != "GET" and not path:
        raise InvalidParameter("The path names no file: ''")
    place_of(world, principal_of(request), full)
    signed = Permit(permit.method, workspace, full, permit.upload, permit.part)
    base = str(request.base_url).rstrip("/")
    return {
        "run_id": run.id,
        "path": path,
        "signed_uri": world.signer.url(base, signed),
        "type": KIND,
        "headers": [],
    }


def _place(request: Request, run: OfRun, path: str) -> Place:
    return place_of(world_of(request), principal_of(request), _full(request, run, path))


def _full(request: Request, run: OfRun, path: str) -> str:
    """The same place that MLflow 3 uses over the Files API. Raises `ResourceNotFound`."""
    workspace = principal_of(request).workspace
    info = world_of(request).tracking.get(workspace, "run", run.id)["info"]
    root = f"/WorkspaceInternal/Mlflow/Artifacts/{info['experiment_id']}/Runs/{run.id}/artifacts"
    return f"{root}/{path}" if path else root
