"""The whole HTTP surface on one screen: routes, middleware, exceptions, lifespan."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route

from servemu.auth import ROUTE_OPTIMIZED, Identity
from servemu.errors import ApiError
from servemu.faults.answers import InjectedError, on_injected_error
from servemu.faults.injection import Injection
from servemu.journalling import Journalling
from servemu.metering import Metering
from servemu.oauth import identifier
from servemu.registry.routes import REGISTRY
from servemu.responses import UnexpectedErrors, on_api_error
from servemu.routes import (
    ai_gateway,
    anthropic,
    certificates,
    conduct,
    control,
    endpoints,
    external_functions,
    foundation,
    gateway,
    identity,
    invocations,
    journal,
    oauth,
    observability,
    openai,
    permissions,
    replies,
    running,
    snapshots,
    stored_models,
    telemetry,
    workspaces,
)
from servemu.routes import provisioned_throughput as throughput
from servemu.routes.guard import guard
from servemu.routes.paths import Slashes, on_http_exception
from servemu.wiring import surroundings
from servemu.world import World

API = "/api/2.0/serving-endpoints"
PERMISSIONS = "/api/2.0/permissions/serving-endpoints/{id}"
DATA = "/serving-endpoints"
GATEWAY = "/ai-gateway/mlflow/v1"
EMULATOR = "/_emulator"

ROUTES = [
    Route(API, endpoints.list_all, methods=["GET"]),
    Route(API, endpoints.create, methods=["POST"]),
    Route(
        API + "/get-model-optimization-info/{model}/{version}",
        throughput.get_model_optimization_info,
        methods=["GET"],
    ),
    Route(API + ":foundation-models", foundation.list_models, methods=["GET"]),
    Route(API + "/pt", throughput.create, methods=["POST"]),
    Route(API + "/pt/{name}/config", throughput.update_config, methods=["PUT"]),
    Route(API + "/{name}", endpoints.get, methods=["GET"]),
    Route(API + "/{name}", endpoints.delete, methods=["DELETE"]),
    Route(API + "/{name}/config", endpoints.update_config, methods=["PUT"]),
    Route(API + "/{name}/config:stop", running.stop, methods=["POST"]),
    Route(API + "/{name}/config:start", running.start, methods=["POST"]),
    Route(API + "/{name}/tags", endpoints.patch_tags, methods=["PATCH"]),
    Route(API + "/{name}/events", observability.events, methods=["GET"]),
    Route(API + "/{name}/metrics", observability.metrics, methods=["GET"]),
    Route(API + "/{name}/openapi", observability.openapi, methods=["GET"]),
    Route(API + "/{name}/served-models/{entity}/logs", observability.logs, methods=["GET"]),
    Route(
        API + "/{name}/served-models/{entity}/build-logs", observability.build_logs, methods=["GET"]
    ),
    Route(API + "/{name}/rate-limits", gateway.put_rate_limits, methods=["PUT"]),
    Route(API + "/{name}/ai-gateway", gateway.put_ai_gateway, methods=["PUT"]),
    Route(API + "/{name}/notifications", telemetry.patch_notifications, methods=["PATCH"]),
    Route(API + "/{name}/telemetry-config", telemetry.patch_telemetry_config, methods=["PATCH"]),
    Route("/api/2.0/external-function", external_functions.call_function, methods=["POST"]),
    Route(PERMISSIONS, permissions.get, methods=["GET"]),
    Route(PERMISSIONS, permissions.put, methods=["PUT"]),
    Route(PERMISSIONS, permissions.patch, methods=["PATCH"]),
    Route(PERMISSIONS + "/permissionLevels", permissions.levels, methods=["GET"]),
    Route(DATA + "/chat/completions", openai.chat_completions, methods=["POST"]),
    Route(DATA + "/completions", openai.completions, methods=["POST"]),
    Route(DATA + "/embeddings", openai.embeddings, methods=["POST"]),
    Route(DATA + "/responses", openai.responses, methods=["POST"]),
    Route(DATA + "/anthropic/v1/messages", anthropic.messages, methods=["POST"]),
    Route(DATA + "/{name}/invocations", invocations.invoke, methods=["POST"]),
    Route(
        DATA + "/{name}/served-models/{entity}/invocations", invocations.invoke, methods=["POST"]
    ),
    Route(
        ROUTE_OPTIMIZED + "/{id}/serving-endpoints/{name}/invocations",
        invocations.invoke,
        methods=["POST"],
    ),
    Route(GATEWAY + "/chat/completions", ai_gateway.chat_completions, methods=["POST"]),
    Route(GATEWAY + "/embeddings", ai_gateway.embeddings, methods=["POST"]),
    Route(GATEWAY + "/responses", ai_gateway.responses, methods=["POST"]),
    *REGISTRY,
    Route("/oidc/.well-known/oauth-authorization-server", oauth.metadata, methods=["GET"]),
    Route("/oidc/.well-known/openid-configuration", oauth.metadata, methods=["GET"]),
    Route("/oidc/v1/token", oauth.token, methods=["POST"]),
    Route("/.well-known/databricks-config", identity.databricks_config, methods=["GET"]),
    Route("/api/2.0/preview/scim/v2/Me", identity.me, methods=["GET"]),
    Route("/telemetry-ext", identity.telemetry, methods=["POST"]),
    Route(EMULATOR + "/health", control.health, methods=["GET"]),
    Route(EMULATOR + "/faults", control.list_faults, methods=["GET"]),
    Route(EMULATOR + "/faults", control.add_fault, methods=["POST"]),
    Route(EMULATOR + "/faults", control.clear_faults, methods=["DELETE"]),
    Route(EMULATOR + "/faults/{id}", control.get_fault, methods=["GET"]),
    Route(EMULATOR + "/faults/{id}", control.delete_fault, methods=["DELETE"]),
    Route(EMULATOR + "/presets", control.presets, methods=["GET"]),
    Route(EMULATOR + "/replies", replies.list_all, methods=["GET"]),
    Route(EMULATOR + "/replies", replies.add, methods=["POST"]),
    Route(EMULATOR + "/replies", replies.clear, methods=["DELETE"]),
    Route(EMULATOR + "/replies/{id}", replies.get, methods=["GET"]),
    Route(EMULATOR + "/replies/{id}", replies.remove, methods=["DELETE"]),
    Route(EMULATOR + "/clock", control.clock, methods=["GET"]),
    Route(EMULATOR + "/clock/advance", control.advance_clock, methods=["POST"]),
    Route(EMULATOR + "/throughput", certificates.list_all, methods=["GET"]),
    Route(EMULATOR + "/throughput/{name}", certificates.get, methods=["GET"]),
    Route(EMULATOR + "/verdict", conduct.judge, methods=["GET"]),
    Route(EMULATOR + "/events/hash", conduct.events_hash, methods=["GET"]),
    Route(EMULATOR + "/reset", workspaces.reset_workspace, methods=["POST"]),
    Route(EMULATOR + "/snapshots", snapshots.list_all, methods=["GET"]),
    Route(EMULATOR + "/snapshots/{name}", snapshots.save, methods=["POST"]),
    Route(EMULATOR + "/snapshots/{name}", snapshots.export, methods=["GET"]),
    Route(EMULATOR + "/snapshots/{name}", snapshots.remove, methods=["DELETE"]),
    Route(EMULATOR + "/snapshots/{name}/restore", snapshots.restore, methods=["POST"]),
    Route(EMULATOR + "/requests", journal.requests, methods=["GET"]),
    Route(EMULATOR + "/models", stored_models.list_all, methods=["GET"]),
    Route(EMULATOR + "/models", stored_models.pull, methods=["POST"]),
    Route(EMULATOR + "/models/{name:path}", stored_models.get, methods=["GET"]),
    Route(EMULATOR + "/models/{name:path}", stored_models.remove, methods=["DELETE"]),
    Route(EMULATOR + "/openapi.json", control.openapi, methods=["GET"]),
    Route(EMULATOR + "/coverage", control.coverage, methods=["GET"]),
]


def create_app(world: World) -> Starlette:
    """The emulator as an ASGI app over a wired world, which it closes at the end."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        reconciling = asyncio.create_task(world.reconciler.run())
        yield
        reconciling.cancel()
        with suppress(asyncio.CancelledError):
            await reconciling
        await asyncio.to_thread(world.residents.close)
        world.files.close()
        world.db.close()

    identify = identifier(world.settings, world.tokens)
    app = Starlette(
        routes=[guard(route) for route in ROUTES],
        middleware=[
            Middleware(Journalling, journal=world.journal),
            Middleware(Identity, identify=identify, dice=world.dice),
            Middleware(Metering, meter=world.meter, clock=world.clock),
            Middleware(UnexpectedErrors),
            Middleware(Slashes),
            Middleware(Injection, around=surroundings(world)),
        ],
        exception_handlers={
            ApiError: on_api_error,
            InjectedError: on_injected_error,
            HTTPException: on_http_exception,
        },
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    app.state.world = world
    return app
