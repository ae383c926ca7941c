"""Reads the packaged tables, merges the user's over them, checks all, resolves the references."""

import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

from servemu.catalog.checks import (
    FAMILY,
    FOUNDATION_MODEL,
    MODEL,
    CatalogInvalid,
    Rule,
    check_row,
)
from servemu.catalog.signatures import read_signature
from servemu.catalog.tables import Catalog, CatalogModel, Family, FoundationEndpoint

Rows = dict[str, dict[str, Any]]

TABLES: Mapping[str, Mapping[str, Rule]] = {
    "families": FAMILY,
    "models": MODEL,
    "foundation_models": FOUNDATION_MODEL,
}


def load_catalog(overrides: Mapping[str, object] | None = None) -> Catalog:
    """The packaged catalogue with the user's tables merged over it, key by key.

    `overrides` is the `[catalog]` table of servemu.toml: `families`, `models`,
    `foundation_models`, each name → row. Raises `CatalogInvalid`.
    """
    return _merged(overrides) if overrides else _packaged()


@cache
def _packaged() -> Catalog:
    return _merged({})


def _merged(overrides: Mapping[str, object]) -> Catalog:
    for table, given in overrides.items():
        if table not in TABLES:
            raise CatalogInvalid("", table, given, "the tables " + ", ".join(TABLES))
    rows = {name: _merge(name, overrides.get(name, {})) for name in TABLES}
    families = {name: _family(name, row) for name, row in rows["families"].items()}
    models = {name: _model(name, row, families) for name, row in rows["models"].items()}
    endpoints = (_endpoint(name, row, models) for name, row in rows["foundation_models"].items())
    return Catalog(families, models, tuple(endpoints))


@cache
def _read(file: str) -> dict[str, Any]:
    text = files("servemu.catalog").joinpath(file).read_text(encoding="utf-8")
    return tomllib.loads(text)


def _merge(name: str, given: object) -> Rows:
    """The rows of one table, packaged and given, with the file's defaults under each."""
    if not isinstance(given, Mapping):
        raise CatalogInvalid("", name, given, "a table of tables")
    document = _read(f"{name}.toml")
    packaged: Rows = document[name] | document.get(f"example_{name}", {})
    defaults: dict[str, Any] = document.get("defaults", {})
    rows: Rows = {}
    for key in packaged | dict(given):
        row = given.get(key, {})
        if not isinstance(row, Mapping):
            raise CatalogInvalid(
                _path(name, key), "", row, "a table with " + ", ".join(TABLES[name])
            )
        merged = defaults | packaged.get(key, {}) | dict(row)
        rows[key] = check_row(_path(name, key), merged, TABLES[name])
    return rows


def _path(table: str, key: str) -> str:
    return f'{table}."{key}"' if "." in key else f"{table}.{key}"


def _family(name: str, row: dict[str, Any]) -> Family:
    path = _path("families", name)
    if "chunk" in row and "unit_chunk" in row:
        raise CatalogInvalid(path, "chunk", row["chunk"], "chunk or unit_chunk, not both")
    if ("unit_chunk" in row) != ("tokens_per_unit" in row):
        given = row.get("tokens_per_unit")
        raise CatalogInvalid(path, "tokens_per_unit", given, "a number, together with unit_chunk")
    if "llm/v1/embeddings" in row["tasks"] and "dimensions" not in row:
        raise CatalogInvalid(path, "dimensions", None, "a whole number, for llm/v1/embeddings")
    stand_in = row.get("stand_in") or _read("families.toml")["stand_ins"][row["tasks"][0]]
    return Family(**row | {"name": name, "tasks": tuple(row["tasks"]), "stand_in": stand_in})


def _model(name: str, row: dict[str, Any], families: Mapping[str, Family]) -> CatalogModel:
    path = _path("models", name)
    family = families.get(row["family"])
    if family is None:
        raise CatalogInvalid(path, "family", row["family"], ", ".join(families))
    if "chunk" in row and family.chunk is None:
        allowed = f"nothing: the family {family.name} is not sized in tokens/s"
        raise CatalogInvalid(path, "chunk", row["chunk"], allowed)
    task = row.get("task", family.tasks[0])
    if task not in family.tasks:
        raise CatalogInvalid(path, "task", task, " | ".join(family.tasks))
    if task != "custom" and "signature" in row:
        raise CatalogInvalid(path, "signature", row["signature"], "nothing: the task is " + task)
    signature = read_signature(path, row.get("signature", {})) if task == "custom" else None
    return CatalogModel(
        full_name=name,
        versions=tuple(row.get("versions", ["1"])),
        family=family,
        task=task,
        served_name=row.get("served_name", name.rpartition(".")[2]),
        chunk=row.get("chunk", family.chunk),
        refusal=row.get("refusal") or None,
        signature=signature,
        api_types=tuple(row.get("api_types", ())),
    )


def _endpoint(
    name: str, row: dict[str, Any], models: Mapping[str, CatalogModel]
) -> FoundationEndpoint:
    model = models.get(row["entity"])
    if model is None:
        path = _path("foundation_models", name)
        raise CatalogInvalid(path, "entity", row["entity"], "a model of catalog.models")
    anchor = row.get("docs_anchor")
    return FoundationEndpoint(
        name=name,
        model=model,
        display_name=row["display_name"],
        description=row.get("description", ""),
        docs=row["docs"] if anchor is None else f"{row['docs']}#{anchor}",
        model_class=row["model_class"],
        api_types=tuple(row["api_types"]),
        created=row["created"],
        capabilities=row.get("capabilities", {}),
        input_price=row.get("input_price"),
        price=row.get("price"),
    )
