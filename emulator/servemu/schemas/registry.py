"""The registry as MLflow's Unity Catalog routes have it: bodies, queries and answers.

Field names: MLflow's `databricks_uc_registry_messages` (facts/uc_registry §1.1, §1.4). Versions are
text there, times are ms. Enumerations go by name.
"""

import re
from typing import Any

from pydantic import Field

from servemu.errors import InvalidParameter
from servemu.schemas.wire import Int64, Wire
from servemu_state.records import ModelVersion, RegisteredModel

MOST = 1000
"""Models a page (GUESS)."""

_BY_NAME = re.compile(r"""\s*name\s*=\s*(['"])(?P<name>[^'"]*)\1\s*""")


class Tag(Wire):
    key: str = Field(min_length=1, max_length=255)
    value: str = ""


class CreateModel(Wire):
    name: str
    description: str = ""
    tags: tuple[Tag, ...] = ()


class InstallListing(Wire):
    name: str
    """Three levels."""


class NamedModel(Wire):
    name: str


class UpdateModel(Wire):
    name: str
    new_name: str | None = None
    description: str | None = None


class SearchModels(Wire):
    max_results: Int64 = Field(100, ge=0, le=MOST)
    page_token: str = ""


class SetTag(Wire):
    name: str
    version: Int64 | None = Field(None, ge=1)
    """Of a version's tag."""
    key: str = Field(min_length=1, max_length=255)
    value: str = ""


class CreateVersion(Wire):
    name: str
    source: str = ""
    run_id: str = ""
    description: str = ""
    tags: tuple[Tag, ...] = ()
    run_tracking_server_id: str | None = None
    model_id: str | None = None


class NamedVersion(Wire):
    name: str
    version: Int64 = Field(ge=1)


class UpdateVersion(NamedVersion):
    description: str = ""


class SearchVersions(Wire):
    filter: str
    max_results: Int64 = Field(MOST, ge=0, le=10 * MOST)
    page_token: str = ""

    def name(self) -> str:
        """The one model that is asked for: Unity Catalog knows no other filter (MLflow's docs).

        Raises `InvalidParameter`; the text is a GUESS.
        """
        found = _BY_NAME.fullmatch(self.filter)
        if found is None:
            raise InvalidParameter(
                f"Unsupported filter query : `{self.filter[:200]}`. Please specify your filter "
                "parameter in the format `name = 'model_name'`."
            )
        return found["name"]


class Alias(Wire):
    name: str
    alias: str
    version: Int64 = Field(ge=1)


class NamedAlias(Wire):
    name: str
    alias: str


def pairs(tags: tuple[Tag, ...]) -> tuple[tuple[str, str], ...]:
    """The tags; of a key that comes twice the last value."""
    return tuple({tag.key: tag.value for tag in tags}.items())


def render_model(model: RegisteredModel) -> dict[str, Any]:
    return {
        "name": model.name,
        "creation_timestamp": _ms(model.created_at),
        "last_updated_timestamp": _ms(model.updated_at),
        "user_id": model.owner,
        "description": model.description,
        "aliases": [{"alias": alias, "version": str(version)} for alias, version in model.aliases],
        "tags": [{"key": key, "value": value} for key, value in model.tags],
    }


def render_version(model: RegisteredModel, version: ModelVersion) -> dict[str, Any]:
    """`storage_location` is where the Files API has it: clients only log it."""
    return {
        "name": model.name,
        "version": str(version.version),
        "creation_timestamp": _ms(version.created_at),
        "last_updated_timestamp": _ms(version.updated_at),
        "user_id": version.creator,
        "description": version.description,
        "source": version.source,
        "run_id": version.run_id,
        **version.details,
        "status": version.status,
        "storage_location": storage_location(model, version.version),
        "aliases": [
            {"alias": alias, "version": str(version.version)}
            for alias in aliases_of(model, version.version)
        ],
        "tags": [{"key": key, "value": value} for key, value in version.tags],
    }


def aliases_of(model: RegisteredModel, version: int) -> list[str]:
    return [alias for alias, number in model.aliases if number == version]


def storage_location(model: RegisteredModel, version: int) -> str:
    """`dbfs:/Models/<catalog>/<schema>/<model>/<version>` (the path is facts/uc_registry §1.2)."""
    return f"dbfs:/Models/{model.name.replace('.', '/')}/{version}"


def _ms(seconds: float) -> int:
    return int(seconds * 1000)
