"""Builds a world from settings: the only place that chooses concrete parts."""

import threading
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from servemu.attic import Attic
from servemu.catalog import CatalogModel, load_catalog
from servemu.clock import Clock
from servemu.dice import Dice
from servemu.faults.injection import Surroundings
from servemu.faults.ledger import Faults
from servemu.journal import Journal
from servemu.lifecycle import mishaps
from servemu.lifecycle.capacity import Pool
from servemu.lifecycle.deployments import Deployments
from servemu.lifecycle.reconciler import Reconciler
from servemu.lifecycle.routing import Engines, TrafficRouter
from servemu.lifecycle.timeline import Timeline
from servemu.loads import Loads
from servemu.machine import Machine
from servemu.metering import Meter
from servemu.oauth import AccessTokens
from servemu.registry.files import open_artifacts
from servemu.registry.lookup import ModelLookup, serving_folder
from servemu.registry.models import RegisteredModels
from servemu.registry.signing import UrlSigner
from servemu.registry.tracking import Tracking
from servemu.registry.versions import ModelVersions
from servemu.replies import Replies
from servemu.residents import Bounds, Build, Residents
from servemu.settings import Settings
from servemu.workspace import Workspaces
from servemu.world import World
from servemu_engine.base import Embedder, Engine, EngineInfo
from servemu_engine.errors import LoadFailed
from servemu_engine.pyfunc import PyfuncEngine
from servemu_state.database import open_database
from servemu_state.records import ServedEntity

if TYPE_CHECKING:
    from servemu_engine.weight_sources import Progress


def build_world(
    settings: Settings, clock: Clock, build: Build | None = None, loads: Loads | None = None
) -> World:
    """Open the database and put everything together; nothing runs yet.

    `build` replaces the engines the settings choose; `loads` shows how far models are. Raises
    `StateError`, `CatalogInvalid`.
    """
    catalog = load_catalog(settings.catalog)
    db = open_database(settings.database)
    files = open_artifacts(settings.artifacts, settings.database)
    attic, dice = Attic(db, files.forget), Dice(settings.seed)
    lookup = ModelLookup(catalog, db, files)
    workspaces = Workspaces(db, clock)
    faults = Faults(db, workspaces.now, settings.faults)
    loads = loads or Loads()
    residents = Residents(
        with_pyfunc(build or engine_builder(settings, loads)),
        clock,
        Bounds(settings.max_resident_models, settings.max_resident_bytes, settings.request_timeout),
        loads,
    )

    replies = Replies(db, settings.replies)

    def load(entity: ServedEntity) -> EngineInfo:
        model = lookup.of(entity)
        if model is None:
            raise LoadFailed(f"Model '{entity.entity_name}' left the catalogue.")
        return residents.load(model).info

    deployments = Deployments(
        db,
        workspaces,
        faults,
        Timeline(lookup, settings.speedup),
        Pool(lookup, faults, settings.capacity),
    )
    engines = Engines(residents, replies, dice)
    router = TrafficRouter(deployments, lookup, engines, clock, settings)
    models = RegisteredModels(db, workspaces, catalog, settings.catalogs)
    return World(
        settings=settings,
        clock=clock,
        db=db,
        catalog=catalog,
        workspaces=workspaces,
        tokens=AccessTokens(db, workspaces),
        faults=faults,
        deployments=deployments,
        reconciler=Reconciler(deployments, router.scaling, clock, load),
        residents=residents,
        replies=replies,
        router=router,
        meter=Meter(workspaces.now),
        machine=Machine(clock),
        journal=Journal(workspaces, clock, settings.journal_size),
        dice=dice,
        attic=attic,
        models=models,
        versions=ModelVersions(db, models, files, catalog, workspaces),
        files=files,
        signer=UrlSigner(db, clock.now),
        lookup=lookup,
        tracking=Tracking(db, workspaces),
        started_at=clock.monotonic(),
    )


def surroundings(world: World) -> Surroundings:
    """What the injection of faults needs of the world."""
    deployments = world.deployments
    return Surroundings(
        faults=world.faults,
        db=world.db,
        clock=world.clock,
        now=world.workspaces.now,
        states=lambda workspace, name: mishaps.states(deployments.find(workspace, name)),
        name_of=partial(mishaps.name_of, world.db),
        befall=deployments.befall,
    )


def with_pyfunc(build: Build) -> Build:
    """Custom models need no engine of the settings' choice."""

    def chosen(model: CatalogModel) -> Engine | Embedder:
        return PyfuncEngine(model.family.stand_in) if model.task == "custom" else build(model)

    return chosen


def engine_builder(settings: Settings, loads: Loads) -> Build:
    """What plays a model, as `--engine` says. What needs torch is imported here, late."""
    if settings.engine == "synthetic":
        return synthetic_engine
    if settings.engine == "remote":
        return lambda model: remote_engine(model, settings)
    return lambda model: local_engine(model, settings, loads.progress(model.family.stand_in))


def synthetic_engine(model: CatalogModel) -> Engine:
    """An engine without weights."""
    from servemu_engine.synthetic import SyntheticEngine  # the first model may be long to come

    return SyntheticEngine(model.family.stand_in)


def remote_engine(model: CatalogModel, settings: Settings) -> Engine | Embedder:
    """An engine on the server that the settings name."""
    from servemu_engine.remote import RemoteEngine, RemoteServer

    is_embedding = model.task == "llm/v1/embeddings"
    embedding_model = settings.remote_embedding_model or settings.remote_model
    key = settings.remote_key
    server = RemoteServer(
        url=settings.remote_url,
        key=None if key is None else key.get_secret_value(),
        model=embedding_model if is_embedding else settings.remote_model,
    )
    return RemoteEngine(server, model.family.stand_in)


def warm_up() -> threading.Thread:
    """Import torch in the background, so that the first deployment need not wait seconds for it;
    and before it what reads a query, so that the first of them holds nobody up.
    """
    modules = ("servemu.routes.openai", "servemu_engine.local", "servemu_engine.embeddings")
    thread = threading.Thread(
        target=lambda: [import_module(module) for module in modules], name="warm-up", daemon=True
    )
    thread.start()
    return thread


def _weights(model: CatalogModel, settings: Settings, progress: "Progress") -> Path:
    from servemu_engine.weights import ModelStore

    if model.folder is not None:
        return serving_folder(model.folder)
    store = ModelStore(settings.model_store.expanduser())
    return store.ensure(model.family.stand_in, progress)


def local_engine(
    model: CatalogModel, settings: Settings, progress: "Progress"
) -> Engine | Embedder:
    """An engine on real weights. Raises `LoadFailed` when they cannot be had."""
    name, folder = model.family.stand_in, _weights(model, settings, progress)
    progress("import", 0, None)
    if model.task == "llm/v1/embeddings":
        from servemu_engine.embeddings import EmbedderOptions, LocalEmbedder

        if model.folder is not None:  # pooled by what it is: the upload does not say
            name = f"{name} ({model.family.model_type})"
        compiled = settings.model_store.expanduser() / ".compiled"
        return LocalEmbedder(
            folder, name, EmbedderOptions(settings.dtype, settings.device, compiled, progress)
        )
    from servemu_engine.local import LocalEngine, LocalOptions

    options = LocalOptions(
        dtype=settings.dtype,
        device=settings.device,
        max_num_sequences=settings.max_sequences,
        num_models=settings.max_resident_models,
        cuda_graphs=settings.cuda_graphs,
        kv_bytes=settings.max_kv_bytes,
        runner=settings.runner,
        compiled=settings.model_store.expanduser() / ".compiled",
        progress=progress,
    )
    return LocalEngine(folder, name, options)
