"""The Files API: uploads, downloads, listings, signed URLs (facts/uc_registry §1.2, §1.3)."""

import asyncio
from pathlib import Path

from starlette.requests import Request
from starlette.responses import FileResponse, Response

from servemu.auth import Principal
from servemu.errors import ArtifactNotFound, InvalidParameter
from servemu.registry.files import Place
from servemu.registry.places import place_of
from servemu.registry.signing import Permit, SignatureRefused
from servemu.responses import json_response
from servemu.schemas import files as schemas
from servemu.schemas.body import parse, read_body, read_object
from servemu.world import principal_of, world_of


async def put_file(request: Request) -> Response:
    place = _place(request, write=True)
    await world_of(request).files.write(place, request.stream())
    return Response(status_code=204)


async def get_file(request: Request) -> Response:
    return _file(world_of(request).files.find(_place(request)))


async def delete_file(request: Request) -> Response:
    await asyncio.to_thread(world_of(request).files.delete, _place(request, write=True))
    return Response(status_code=204)


async def post_file(request: Request) -> Response:
    """Begin or complete an upload in parts, by `action` in the query."""
    match request.query_params.get("action"):
        case "initiate-upload":
            token = world_of(request).files.begin(_place(request, write=True))
            return json_response({"multipart_upload": {"session_token": token}})
        case "complete-upload":
            return await _complete(request)
        case other:
            raise InvalidParameter(
                f"action must be initiate-upload or complete-upload (given: {other})"
            )


async def _complete(request: Request) -> Response:
    token = request.query_params.get("session_token", "")
    body = await read_body(request, schemas.CompleteUpload)
    parts = [(part.part_number, part.etag) for part in body.parts]
    place = _place(request, write=True)
    await asyncio.to_thread(world_of(request).files.complete, token, place, parts)
    return json_response({})


async def part_urls(request: Request) -> Response:
    asked = await read_body(request, schemas.SignedParts)
    place = place_of(world_of(request), principal_of(request), asked.path, write=True)
    world_of(request).files.upload(asked.session_token, place)
    numbers = range(asked.start_part_number, asked.start_part_number + asked.count)
    urls = [
        {
            "url": _signed(request, asked, "PUT", (asked.session_token, number)),
            "part_number": number,
            "headers": [],
        }
        for number in numbers
    ]
    return json_response({"upload_part_urls": urls})


async def abort_url(request: Request) -> Response:
    asked = await read_body(request, schemas.SignedUpload)
    place = place_of(world_of(request), principal_of(request), asked.path, write=True)
    world_of(request).files.upload(asked.session_token, place)
    url = _signed(request, asked, "DELETE", (asked.session_token, 0))
    return json_response({"abort_upload_url": {"url": url, "headers": []}})


async def upload_url(request: Request) -> Response:
    asked = await _asked(request)
    place_of(world_of(request), principal_of(request), asked.path, write=True)
    return json_response({"url": _signed(request, asked, "PUT"), "headers": []})


async def download_url(request: Request) -> Response:
    asked = await _asked(request)
    place = place_of(world_of(request), principal_of(request), asked.path)
    _only_file(world_of(request).files.find(place), asked.path)
    return json_response({"url": _signed(request, asked, "GET"), "headers": []})


async def presigned(request: Request) -> Response:
    """What a signed URL allows, without a token: the path goes by the signature alone."""
    world = world_of(request)
    method = "GET" if request.method == "HEAD" else request.method
    signature, body = request.path_params["signature"], request.path_params["body"]
    try:
        permit = world.signer.read(method, signature, body)
    except SignatureRefused as refused:
        text = f"<Error><Code>{refused.code}</Code><Message>{refused}</Message></Error>"
        return Response(text, 403, media_type="application/xml")
    if permit.upload and method == "DELETE":
        world.files.abort(permit.upload)
        return Response(status_code=204)
    if permit.upload:
        etag = await world.files.write_part(permit.upload, permit.part, request.stream())
        return Response(headers={"ETag": f'"{etag}"'})
    # The signer was allowed to; whoever holds the URL acts for them.
    signer = Principal(workspace=permit.workspace)
    place = place_of(world, signer, permit.path, write=method == "PUT")
    if method == "GET":
        return _file(world.files.find(place))
    await world.files.write(place, request.stream())
    return Response(status_code=200)


async def get_folder(request: Request) -> Response:
    """The entries of a folder by name, a page at a time."""
    asked = parse(dict(request.query_params), schemas.ListFolder)
    folder = _folder(request)
    path = "/" + request.path_params["path"].strip("/")
    names = sorted(entry.name for entry in folder.iterdir() if entry.name > asked.page_token)
    most = asked.page_size or 1000
    shown = {"contents": [_entry(path, folder / name) for name in names[:most]]}
    more = {"next_page_token": names[most - 1]} if len(names) > most else {}
    return json_response({**shown, **more})


async def head_folder(request: Request) -> Response:
    _folder(request)
    return Response()


async def put_folder(request: Request) -> Response:
    """Folders come with their files: to make one is to say so."""
    _place(request, write=True)
    return Response(status_code=204)


async def credentials(request: Request) -> Response:
    """No cloud: presigned URLs of ours, for MLflow before 2.17 (facts/uc_registry §1.2 B)."""
    body = await read_body(request, schemas.Credentials)
    workspace = principal_of(request).workspace
    world_of(request).versions.get(workspace, body.name, body.version)
    expires = int((world_of(request).clock.now() + 3600) * 1000)
    return json_response(
        {"credentials": {"storage_mode": "DEFAULT_STORAGE", "expiration_time": expires}}
    )


async def uses_files_api(request: Request) -> Response:
    return json_response({"is_databricks_sdk_models_artifact_repository_enabled": True})


async def _asked(request: Request) -> schemas.SignedFile:
    """databricks-sdk has it in the query, MLflow in the body (facts/uc_registry §1.3)."""
    given = await read_object(request)
    return parse({**request.query_params, **given}, schemas.SignedFile)


def _signed(
    request: Request, asked: schemas.SignedFile, method: str, part: tuple[str, int] = ("", 0)
) -> str:
    """Under the address that the client used, which in a container is not ours."""
    world = world_of(request)
    permit = Permit(method, principal_of(request).workspace, asked.path, *part)
    base = str(request.base_url).rstrip("/")
    return world.signer.url(base, permit, asked.seconds(world.clock.now()))


def _place(request: Request, *, write: bool = False) -> Place:
    path = "/" + request.path_params["path"].lstrip("/")
    return place_of(world_of(request), principal_of(request), path, write=write)


def _folder(request: Request) -> Path:
    """A folder of the path; the root of a version is one before its first file came.

    Raises `ArtifactNotFound`, for a file too: MLflow tells them apart by it.
    """
    place = _place(request)
    found = world_of(request).files.find(place)
    if not found.is_dir():
        raise ArtifactNotFound(request.path_params["path"])
    return found


def _only_file(found: Path, path: str) -> Path:
    if not found.is_file():
        raise ArtifactNotFound(path)
    return found


def _file(found: Path) -> Response:
    """With Range, Last-Modified and Content-Length (facts/uc_registry §1.3)."""
    path = _only_file(found, found.name)
    return FileResponse(path, media_type="application/octet-stream")


def _entry(parent: str, path: Path) -> dict[str, object]:
    stat = path.stat()
    return schemas.render_entry(
        f"{parent}/{path.name}",
        is_directory=path.is_dir(),
        size=stat.st_size,
        modified=stat.st_mtime,
    )
