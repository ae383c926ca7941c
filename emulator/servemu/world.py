"""Everything one running emulator is made of, and how a route finds it."""

from dataclasses import dataclass

from starlette.requests import Request

from servemu.attic import Attic
from servemu.auth import Principal
from servemu.catalog import Catalog
from servemu.clock import Clock
from servemu.dice import Dice
from servemu.faults.ledger import Faults
from servemu.journal import Journal
from servemu.lifecycle.calls import Call
from servemu.lifecycle.deployments import Deployments
from servemu.lifecycle.reconciler import Reconciler
from servemu.lifecycle.routing import TrafficRouter
from servemu.machine import Machine
from servemu.metering import Meter
from servemu.oauth import AccessTokens
from servemu.registry.files import ArtifactFiles
from servemu.registry.lookup import ModelLookup
from servemu.registry.models import RegisteredModels
from servemu.registry.signing import UrlSigner
from servemu.registry.tracking import Tracking
from servemu.registry.versions import ModelVersions
from servemu.replies import Replies
from servemu.residents import Residents
from servemu.settings import Settings
from servemu.workspace import Workspaces
from servemu_state.database import Database


@dataclass(frozen=True, slots=True)
class World:
    """Wired by `servemu.app.build_world`; lives as long as the app."""

    settings: Settings
    clock: Clock
    db: Database
    catalog: Catalog
    workspaces: Workspaces
    tokens: AccessTokens
    faults: Faults
    deployments: Deployments
    reconciler: Reconciler
    residents: Residents
    replies: Replies
    router: TrafficRouter
    meter: Meter
    machine: Machine
    journal: Journal
    dice: Dice
    attic: Attic
    models: RegisteredModels
    versions: ModelVersions
    files: ArtifactFiles
    signer: UrlSigner
    lookup: ModelLookup
    tracking: Tracking
    started_at: float
    """`clock.monotonic()` at the start."""


def world_of(request: Request) -> World:
    """The world the app was created with."""
    world: World = request.app.state.world
    return world


def principal_of(request: Request) -> Principal:
    """Who asks, as the identity middleware found it."""
    principal: Principal = request.scope["principal"]
    return principal


def call_of(request: Request, operation: str) -> Call:
    """The request as fault rules see it."""
    return Call(
        workspace=principal_of(request).workspace,
        operation=operation,
        request_id=request.scope["request_id"],
        headers=dict(request.headers),
        exposure=request.scope.get("exposure"),
    )
