"""The registry as Unity Catalog's 2.1 routes have it (facts/uc_registry §1.5, databricks-sdk)."""

from typing import Any

from pydantic import Field

from servemu.schemas.registry import aliases_of, storage_location
from servemu.schemas.wire import Int64, Wire
from servemu_state.records import ModelVersion, RegisteredModel

MOST = 100
"""Models a page, also for `max_results` = 0, "a server configured value" (databricks-sdk)."""


class CreateModel(Wire):
    catalog_name: str
    schema_name: str
    name: str
    comment: str = ""

    @property
    def full_name(self) -> str:
        return f"{self.catalog_name}.{self.schema_name}.{self.name}"


class UpdateModel(Wire):
    new_name: str | None = None
    comment: str | None = None
    owner: str | None = None


class ListModels(Wire):
    catalog_name: str = ""
    schema_name: str = ""
    max_results: Int64 = Field(0, ge=0, le=1000)
    page_token: str = ""

    @property
    def within(self) -> str:
        """What the full names begin with."""
        levels = (self.catalog_name, self.schema_name) if self.catalog_name else ()
        return "".join(f"{level}." for level in levels if level)


class UpdateVersion(Wire):
    comment: str | None = None


class SetAlias(Wire):
    version_num: Int64 = Field(ge=1)


def render_model(model: RegisteredModel) -> dict[str, Any]:
    catalog, schema, name = model.name.split(".")
    return {
        "name": name,
        "catalog_name": catalog,
        "schema_name": schema,
        "full_name": model.name,
        "owner": model.owner,
        "comment": model.description,
        "created_at": int(model.created_at * 1000),
        "created_by": model.owner,
        "updated_at": int(model.updated_at * 1000),
        "updated_by": model.updated_by,
        "storage_location": f"dbfs:/Models/{model.name.replace('.', '/')}",
        "aliases": [render_alias(alias, version) for alias, version in model.aliases],
    }


def render_version(model: RegisteredModel, version: ModelVersion) -> dict[str, Any]:
    catalog, schema, name = model.name.split(".")
    return {
        "model_name": name,
        "catalog_name": catalog,
        "schema_name": schema,
        "version": version.version,
        "status": version.status,
        "source": version.source,
        "run_id": version.run_id,
        "comment": version.description,
        "storage_location": storage_location(model, version.version),
        "created_at": int(version.created_at * 1000),
        "created_by": version.creator,
        "updated_at": int(version.updated_at * 1000),
        "updated_by": version.updated_by,
        "aliases": [
            render_alias(alias, version.version) for alias in aliases_of(model, version.version)
        ],
    }


def render_alias(alias: str, version: int) -> dict[str, Any]:
    return {"alias_name": alias, "version_num": version}
