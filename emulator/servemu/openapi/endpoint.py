"""The OpenAPI document of one endpoint. The layout is a GUESS (facts/control_plane §7)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from servemu.openapi.answers import PredictionsAnswer
from servemu.openapi.document import envelope, operation_object
from servemu.openapi.operations import DATA, OPERATIONS, Operation, PredictionsRequest

BY_TASK: Mapping[str, Operation] = {
    "llm/v1/chat": OPERATIONS[f"POST {DATA}/chat/completions"],
    "llm/v1/completions": OPERATIONS[f"POST {DATA}/completions"],
    "llm/v1/embeddings": OPERATIONS[f"POST {DATA}/embeddings"],
    "custom": Operation((PredictionsAnswer,), (PredictionsRequest,)),
}


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What an endpoint serves."""

    endpoint: str
    config_version: int
    task: str
    entities: tuple[str, ...]


def document(served: ServedModel, host: str) -> dict[str, Any]:
    """By its task; an endpoint whose task is not emulated takes and answers any object."""
    operation = BY_TASK.get(served.task, Operation())
    paths = {"/invocations": f"Query {served.endpoint}, by its traffic split"} | {
        f"/served-models/{entity}/invocations": f"Query served entity {entity}"
        for entity in served.entities
    }
    return envelope(
        {"title": served.endpoint, "version": str(served.config_version)},
        f"{host}{DATA}/{served.endpoint}",
        {
            path: {"post": operation_object(operation, summary, has_body=True)}
            for path, summary in paths.items()
        },
        [operation],
    )
