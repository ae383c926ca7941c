"""A database, and records to put into it."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from servemu_state.database import Database, open_database
from servemu_state.records import (
    ConfigUpdate,
    Deployment,
    Endpoint,
    EntityState,
    Route,
    ServedEntity,
)

MakeEndpoint = Callable[..., Endpoint]


@pytest.fixture
def database() -> Iterator[Database]:
    """An open database in memory."""
    opened = open_database(":memory:")
    yield opened
    opened.close()


@pytest.fixture
def deployment() -> Deployment:
    """A deployment of two served entities, under way, with a fault drawn."""
    entity = ServedEntity(
        name="llama-1",
        state=EntityState.CREATING,
        state_message="Creating resources for served entity.",
        creator="me@example.com",
        created_at=1700000000.25,
        entity_name="system.ai.llama_v3_1_8b_instruct",
        entity_version="1",
        min_provisioned_throughput=0,
        max_provisioned_throughput=19000,
        settings={"workload_type": "GPU_MEDIUM", "environment_vars": {"A": "ä"}},
    )
    return Deployment(
        config_version=2,
        entities=(entity, replace(entity, name="llama-2", state=EntityState.READY)),
        routes=(Route("llama-1", 80), Route("llama-2", 20)),
        started_at=1700000001.5,
        stage=1,
        due_at=1700000009.0,
        fault={"rule": "no-gpu", "effect": {"type": "no_capacity"}},
    )


@pytest.fixture
def make_endpoint(deployment: Deployment) -> MakeEndpoint:
    """Makes an endpoint by name; keywords replace its fields."""

    def make(name: str, **changes: object) -> Endpoint:
        endpoint = Endpoint(
            id=name.encode().hex().zfill(32),
            workspace="default",
            name=name,
            creator="me@example.com",
            created_at=1700000000.0,
            updated_at=1700000000.0,
            config_update=ConfigUpdate.IN_PROGRESS,
            last_config_version=2,
            tags=(("team", "a"), ("team", "b")),
            settings={"description": "x", "ai_gateway": {"rate_limits": []}},
            active=replace(deployment, config_version=1, due_at=None, fault=None),
            pending=deployment,
        )
        return replace(endpoint, **changes)  # type: ignore[arg-type]

    return make
