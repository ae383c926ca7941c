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
from servemu.routes.guard import guard
from servemu.routes.late import view
from servemu.routes.paths import Slashes, on_http_exception
from servemu.wiring import surroundings
from servemu.world import World

API = "/api/2.0/serving-endpoints"
PERMISSIONS = "/api/2.0/permissions/serving-endpoints/{id}"
DATA = "/serving-endpoints"
GATEWAY = "/ai-gateway/mlflow/v1"
EMULATOR = "/_emulator"

ROUTES = [
    Route(API, view("endpoints.list_all"), methods=["GET"]),
    Route(API, view("deploying.create"), methods=["POST"]),
    Route(
        API + "/get-model-optimization-info/{model}/{version}",
        view("provisioned_throughput.get_model_optimization_info"),
        methods=["GET"],
    ),
    Route(API + ":foundation-models", view("foundation.list_models"), methods=["GET"]),
    Route(API + "/pt", view("provisioned_throughput.create"), methods=["POST"]),
    Route(API + "/pt/{name}/config", view("provisioned_throughput.update_config"), methods=["PUT"]),
    Route(API + "/{name}", view("endpoints.get"), methods=["GET"]),
    Route(API + "/{name}", view("endpoints.delete"), methods=["DELETE"]),
    Route(API + "/{name}/config", view("deploying.update_config"), methods=["PUT"]),
    Route(API + "/{name}/config:stop", view("running.stop"), methods=["POST"]),
    Route(API + "/{name}/config:start", view("running.start"), methods=["POST"]),
    Route(API + "/{name}/tags", view("deploying.patch_tags"), methods=["PATCH"]),
    Route(API + "/{name}/events", view("observability.events"), methods=["GET"]),
    Route(API + "/{name}/metrics", view("observability.metrics"), methods=["GET"]),
    Route(API + "/{name}/openapi", view("observability.openapi"), methods=["GET"]),
    Route(API + "/{name}/served-models/{entity}/logs", view("observability.logs"), methods=["GET"]),
    Route(
        API + "/{name}/served-models/{entity}/build-logs",
        view("observability.build_logs"),
        methods=["GET"],
    ),
    Route(API + "/{name}/rate-limits", view("gateway.put_rate_limits"), methods=["PUT"]),
    Route(API + "/{name}/ai-gateway", view("gateway.put_ai_gateway"), methods=["PUT"]),
    Route(API + "/{name}/notifications", view("telemetry.patch_notifications"), methods=["PATCH"]),
    Route(
        API + "/{name}/telemetry-config",
        view("telemetry.patch_telemetry_config"),
        methods=["PATCH"],
    ),
    Route("/api/2.0/external-function", view("external_functions.call_function"), methods=["POST"]),
    Route(PERMISSIONS, view("permissions.get"), methods=["GET"]),
    Route(PERMISSIONS, view("permissions.put"), methods=["PUT"]),
    Route(PERMISSIONS, view("permissions.patch"), methods=["PATCH"]),
    Route(PERMISSIONS + "/permissionLevels", view("permissions.levels"), methods=["GET"]),
    Route(DATA + "/chat/completions", view("openai.chat_completions"), methods=["POST"]),
    Route(DATA + "/completions", view("openai.completions"), methods=["POST"]),
    Route(DATA + "/embeddings", view("openai.embeddings"), methods=["POST"]),
    Route(DATA + "/responses", view("openai.responses"), methods=["POST"]),
    Route(DATA + "/anthropic/v1/messages", view("anthropic.messages"), methods=["POST"]),
    Route(DATA + "/{name}/invocations", view("invocations.invoke"), methods=["POST"]),
    Route(
        DATA + "/{name}/served-models/{entity}/invocations",
        view("invocations.invoke"),
        methods=["POST"],
    ),
    Route(
        ROUTE_OPTIMIZED + "/{id}/serving-endpoints/{name}/invocations",
        view("invocations.invoke"),
        methods=["POST"],
    ),
    Route(GATEWAY + "/chat/completions", view("ai_gateway.chat_completions"), methods=["POST"]),
    Route(GATEWAY + "/embeddings", view("ai_gateway.embeddings"), methods=["POST"]),
    Route(GATEWAY + "/responses", view("ai_gateway.responses"), methods=["POST"]),
    *REGISTRY,
    Route("/oidc/.well-known/oauth-authorization-server", view("oauth.metadata"), methods=["GET"]),
    Route("/oidc/.well-known/openid-configuration", view("oauth.metadata"), methods=["GET"]),
    Route("/oidc/v1/token", view("oauth.token"), methods=["POST"]),
    Route("/.well-known/databricks-config", view("identity.databricks_config"), methods=["GET"]),
    Route("/api/2.0/preview/scim/v2/Me", view("identity.me"), methods=["GET"]),
    Route("/telemetry-ext", view("identity.telemetry"), methods=["POST"]),
    Route(EMULATOR + "/health", view("control.health"), methods=["GET"]),
    Route(EMULATOR + "/faults", view("control.list_faults"), methods=["GET"]),
    Route(EMULATOR + "/faults", view("control.add_fault"), methods=["POST"]),
    Route(EMULATOR + "/faults", view("control.clear_faults"), methods=["DELETE"]),
    Route(EMULATOR + "/faults/{id}", view("control.get_fault"), methods=["GET"]),
    Route(EMULATOR + "/faults/{id}", view("control.delete_fault"), methods=["DELETE"]),
    Route(EMULATOR + "/presets", view("control.presets"), methods=["GET"]),
    Route(EMULATOR + "/replies", view("replies.list_all"), methods=["GET"]),
    Route(EMULATOR + "/replies", view("replies.add"), methods=["POST"]),
    Route(EMULATOR + "/replies", view("replies.clear"), methods=["DELETE"]),
    Route(EMULATOR + "/replies/{id}", view("replies.get"), methods=["GET"]),
    Route(EMULATOR + "/replies/{id}", view("replies.remove"), methods=["DELETE"]),
    Route(EMULATOR + "/clock", view("control.clock"), methods=["GET"]),
    Route(EMULATOR + "/clock/advance", view("control.advance_clock"), methods=["POST"]),
    Route(EMULATOR + "/throughput", view("certificates.list_all"), methods=["GET"]),
    Route(EMULATOR + "/throughput/{name}", view("certificates.get"), methods=["GET"]),
    Route(EMULATOR + "/verdict", view("conduct.judge"), methods=["GET"]),
    Route(EMULATOR + "/events/hash", view("conduct.events_hash"), methods=["GET"]),
    Route(EMULATOR + "/reset", view("workspaces.reset_workspace"), methods=["POST"]),
    Route(EMULATOR + "/snapshots", view("snapshots.list_all"), methods=["GET"]),
    Route(EMULATOR + "/snapshots/{name}", view("snapshots.save"), methods=["POST"]),
    Route(EMULATOR + "/snapshots/{name}", view("snapshots.export"), methods=["GET"]),
    Route(EMULATOR + "/snapshots/{name}", view("snapshots.remove"), methods=["DELETE"]),
    Route(EMULATOR + "/snapshots/{name}/restore", view("snapshots.restore"), methods=["POST"]),
    Route(EMULATOR + "/requests", view("journal.requests"), methods=["GET"]),
    Route(EMULATOR + "/models", view("stored_models.list_all"), methods=["GET"]),
    Route(EMULATOR + "/models", view("stored_models.pull"), methods=["POST"]),
    Route(EMULATOR + "/models/{name:path}", view("stored_models.get"), methods=["GET"]),
    Route(EMULATOR + "/models/{name:path}", view("stored_models.remove"), methods=["DELETE"]),
    Route(EMULATOR + "/openapi.json", view("control.openapi"), methods=["GET"]),
    Route(EMULATOR + "/coverage", view("control.coverage"), methods=["GET"]),
]


@asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    world: World = app.state.world
    reconciling = asyncio.create_task(world.reconciler.run())
    yield
    reconciling.cancel()
    with suppress(asyncio.CancelledError):
        await reconciling
    await asyncio.to_thread(world.residents.close)
    world.files.close()
    world.db.close()


def create_app(world: World) -> Starlette:
    """The emulator as an ASGI app over a wired world, which it closes at the end."""
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
        lifespan=_lifespan,
    )
    app.router.redirect_slashes = False
    app.state.world = world
    return app
