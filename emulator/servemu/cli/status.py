"""`servemu status` and `servemu endpoints`."""

from typing import Any

import typer

from servemu.cli.connection import (
    DEFAULT_URL,
    AsJson,
    Connection,
    Token,
    Url,
    show_json,
    show_table,
)


def status(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """Is it up, and with what; the event log of the workspace (equal for two runs of a seed)."""
    connection = Connection(url, token)
    log = connection.get("/_emulator/events/hash")
    health = connection.get("/_emulator/health")
    health |= {"seed": log["seed"], "event_log_hash": log["hash"]}
    if as_json:
        show_json(health)
        return
    for key, value in health.items():
        typer.echo(f"{key:16} {value}")


def endpoints(
    url: Url = DEFAULT_URL,
    token: Token = None,
    as_json: AsJson = False,
    every: bool = typer.Option(False, "--all", help="Also the pay-per-token endpoints."),
) -> None:
    """The endpoints of the workspace and what state they are in."""
    answer = Connection(url, token).get("/api/2.0/serving-endpoints")
    shown = [e for e in answer["endpoints"] if every or "id" in e]
    if as_json:
        show_json({"endpoints": shown})
        return
    rows = [(e["name"], _state(e["state"]), e.get("task", ""), _entities(e)) for e in shown]
    show_table(("name", "state", "task", "entities"), rows)


def _state(state: dict[str, str]) -> str:
    """The label of the workspace's own page (facts/control_plane §3)."""
    ready = {"READY": "Ready", "NOT_READY": "Not ready"}[state["ready"]]
    update = {
        "IN_PROGRESS": " (Updating)",
        "UPDATE_FAILED": " (Update failed)",
        "UPDATE_CANCELED": " (Update canceled)",
    }.get(state["config_update"], "")
    return ready + update


def _entities(endpoint: dict[str, Any]) -> str:
    entities = endpoint.get("config", {}).get("served_entities", [])
    return ", ".join(
        f"{e['entity_name']}/{e.get('entity_version', '')}".rstrip("/") for e in entities
    )
