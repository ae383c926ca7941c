"""A workspace as one document, and a document as the state of a workspace: all of it or nothing.

A restore takes the workspace's clock back to the moment of the snapshot, so deployments under way
have as long to go as they had then. Endpoints keep their ids, unless another workspace has them.
Kept as they are: registered models, the snapshots themselves; the journal starts anew.
"""

from collections.abc import Callable
from dataclasses import fields, replace
from functools import partial
from typing import Any

from pydantic import BaseModel

from servemu.errors import InvalidParameter, ResourceNotFound
from servemu.lifecycle.configs import check_name
from servemu.reset import forget
from servemu.schemas.body import parse
from servemu.schemas.faults import parse_rule
from servemu.schemas.replies import Reply
from servemu.schemas.snapshots import DeploymentSaved, Document, EndpointSaved
from servemu.world import World
from servemu_state import endpoints, events, faults, permissions, replies, snapshots, workspaces
from servemu_state.database import Connection
from servemu_state.records import (
    ConfigUpdate,
    Deployment,
    Endpoint,
    Event,
    FaultRule,
    Grant,
    Route,
    ScriptedReply,
    ServedEntity,
    Snapshot,
)

HISTORY = 10_000
"""Newest events of an endpoint that a snapshot keeps."""
Record = Endpoint | Deployment | ServedEntity | Route | Event | Grant | FaultRule | ScriptedReply
RUNNING = frozenset({ConfigUpdate.IN_PROGRESS})


def take(world: World, workspace: str) -> Document:
    """The workspace as it is now."""
    record = world.workspaces.open(workspace)
    with world.db.read() as connection:
        saved = [
            _endpoint_saved(connection, endpoint)
            for endpoint in endpoints.list_all(connection, workspace)
        ]
        rules = faults.list_all(connection, workspace)
        scripted = replies.list_all(connection, workspace)
    return Document.model_validate(
        {
            "taken_at": world.workspaces.now(workspace),
            "began_at": record.created_at,
            "endpoints": saved,
            "faults": [_fields(rule, "workspace") for rule in rules],
            "replies": [_fields(reply, "workspace") for reply in scripted],
            "draws": world.dice.ordinals(workspace),
        }
    )


def checked(given: dict[str, object]) -> Document:
    """A document that somebody brings. Raises `InvalidParameter`, which names the field."""
    document = parse(given, Document)
    names = [endpoint.name for endpoint in document.endpoints]
    for number, endpoint in enumerate(document.endpoints):
        where = f"endpoints[{number}]"
        check_name(endpoint.name)
        if names.count(endpoint.name) > 1:
            raise InvalidParameter(f"{where}.name: '{endpoint.name}' is there twice.")
        _check_deployments(endpoint, where)
    for number, fault in enumerate(document.faults):
        _check_inside(f"faults[{number}].rule", partial(parse_rule, fault.rule))
    for number, reply in enumerate(document.replies):
        _check_inside(f"replies[{number}].reply", partial(parse, reply.reply, Reply))
    return document


def keep(world: World, workspace: str, name: str, document: Document) -> None:
    """Store it under the name, in place of one that has it."""
    content = document.model_dump(mode="json")
    with world.db.write() as connection:
        snapshots.save(connection, Snapshot(workspace, name, content))


def find(world: World, workspace: str, name: str) -> Document:
    """The stored document. Raises `ResourceNotFound`."""
    with world.db.read() as connection:
        snapshot = snapshots.get(connection, workspace, name)
    if snapshot is None:
        raise ResourceNotFound(f"Snapshot with name '{name}' does not exist.")
    return parse(dict(snapshot.document), Document)


def restore(world: World, workspace: str, document: Document) -> None:
    """The workspace is what the document says, in one transaction."""
    before = world.workspaces.open(workspace)
    world.attic.empty()  # its rows may have the ids that come back
    offset = document.taken_at - world.clock.now()
    record = replace(before, created_at=document.began_at, clock_offset=offset)
    with world.db.write() as connection:
        endpoints.delete_all(connection, workspace)
        faults.delete_all(connection, workspace)
        replies.delete_all(connection, workspace)
        workspaces.save(connection, record)
        restored = [_insert(world, connection, workspace, one) for one in document.endpoints]
        for fault in document.faults:
            faults.insert(connection, FaultRule(workspace, **_plain(fault)))
        for reply in document.replies:
            replies.insert(connection, ScriptedReply(workspace, **_plain(reply)))
    world.workspaces.put(record)
    forget(world, workspace)
    world.dice.go_on(workspace, document.draws)
    world.deployments.take_up(restored)
    for endpoint in restored:
        world.router.scaling.resume(endpoint)


def _endpoint_saved(connection: Connection, endpoint: Endpoint) -> dict[str, Any]:
    history = events.list_newest(connection, endpoint.id, HISTORY)
    grants = permissions.list_all(connection, endpoint.id)
    return {
        **_fields(endpoint, "workspace"),
        "active": _deployment_saved(endpoint.active),
        "pending": _deployment_saved(endpoint.pending),
        "events": [_fields(event, "endpoint_id") for event in reversed(history)],
        "permissions": [_fields(grant) for grant in grants],
    }


def _deployment_saved(deployment: Deployment | None) -> dict[str, Any] | None:
    if deployment is None:
        return None
    return {
        **_fields(deployment),
        "entities": [_fields(entity) for entity in deployment.entities],
        "routes": [_fields(route) for route in deployment.routes],
    }


def _fields(record: Record, *but: str) -> dict[str, Any]:
    """A record's fields by name, unconverted."""
    return {f.name: getattr(record, f.name) for f in fields(record) if f.name not in but}


def _plain(saved: BaseModel) -> dict[str, Any]:
    return {name: getattr(saved, name) for name in type(saved).model_fields}


def _insert(world: World, connection: Connection, workspace: str, saved: EndpointSaved) -> Endpoint:
    deployed = {"active": _deployment(saved.active), "pending": _deployment(saved.pending)}
    plain = {**_plain(saved), **deployed, "workspace": workspace}
    history, grants = plain.pop("events"), plain.pop("permissions")
    endpoint = Endpoint(**plain)
    if endpoints.is_taken(connection, endpoint.id):
        fresh = world.dice.hex(workspace, f"endpoint/{endpoint.name}")
        endpoint = replace(endpoint, id=fresh)
    endpoints.insert(connection, endpoint)
    for event in history:
        events.append(connection, Event(endpoint.id, **_plain(event)))
    permissions.replace_all(connection, endpoint.id, [Grant(**_plain(grant)) for grant in grants])
    return endpoint


def _deployment(saved: DeploymentSaved | None) -> Deployment | None:
    if saved is None:
        return None
    entities = tuple(ServedEntity(**_plain(entity)) for entity in saved.entities)
    routes = tuple(Route(**_plain(route)) for route in saved.routes)
    return Deployment(**{**_plain(saved), "entities": entities, "routes": routes})


def _check_deployments(endpoint: EndpointSaved, where: str) -> None:
    """What the lifecycle takes for granted. Raises `InvalidParameter`."""
    is_running = endpoint.config_update in RUNNING
    has_to_go_on = endpoint.pending is not None and endpoint.pending.due_at is not None
    if is_running != has_to_go_on:
        raise InvalidParameter(
            f"{where}.pending.due_at: must be there exactly while config_update is IN_PROGRESS."
        )
    for role in ("active", "pending"):
        deployment: DeploymentSaved | None = getattr(endpoint, role)
        if deployment is None:
            continue
        names = {entity.name for entity in deployment.entities}
        unknown = {route.served_entity for route in deployment.routes} - names
        if unknown:
            raise InvalidParameter(f"{where}.{role}.routes: no entity is called '{min(unknown)}'.")
        if deployment.config_version > endpoint.last_config_version:
            raise InvalidParameter(
                f"{where}.{role}.config_version: must be at most last_config_version, "
                f"{endpoint.last_config_version}, got {deployment.config_version}."
            )


def _check_inside(where: str, check: Callable[[], object]) -> None:
    try:
        check()
    except InvalidParameter as error:
        raise InvalidParameter(f"{where}: {error.message}") from None
