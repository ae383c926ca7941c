"""What clients that meet a preset have in common: what they ask, and how long they wait."""

from datetime import timedelta
from typing import Any

import openai
from databricks.sdk import WorkspaceClient
from databricks.sdk.clock import Clock
from databricks.sdk.service.serving import (
    ChatMessage,
    ChatMessageRole,
    EndpointCoreConfigInput,
    ServedEntityInput,
)

from servemu.faults.presets import presets

Json = dict[str, Any]
UP = 2.0
"""Seconds of the workspace's clock until an 8B serves, at a speedup of 60."""
AT_ONCE = timedelta(seconds=0.5)
"""So that a waiter that waits fails its test instead of waiting."""


class Sleepless(Clock):
    """The SDK's own clock: its sleeps pass at once, and are remembered."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def time(self) -> float:
        return 1e9 + sum(self.slept)

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


def config(*names: str) -> EndpointCoreConfigInput:
    entities = [
        ServedEntityInput(
            name=name,
            entity_name="ml.llm-catalog.foundation-model",
            entity_version="3",
            min_provisioned_throughput=1580,
            max_provisioned_throughput=1580,
        )
        for name in names or ("a",)
    ]
    return EndpointCoreConfigInput(name="llama", served_entities=entities)


def ask(chat: openai.OpenAI, model: str = "llama", **fields: Any) -> Any:
    create: Any = chat.chat.completions.create
    messages = [{"role": "user", "content": "hello"}]
    return create(model=model, messages=messages, max_tokens=12, **fields)


def query(sdk: WorkspaceClient) -> object:
    message = ChatMessage(role=ChatMessageRole.USER, content="hello")
    return sdk.serving_endpoints.query("llama", messages=[message], max_tokens=12)


def effect(preset: str) -> Json:
    given: Json = presets()[preset].rule["effect"]
    return given
