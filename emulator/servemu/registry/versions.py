"""What can be done to the versions of registered models, and to the aliases that name them."""

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Protocol

from servemu.auth import Principal
from servemu.catalog import Catalog
from servemu.errors import AliasNotFound, InvalidParameter, ModelNotFound
from servemu.registry.models import Pairs, RegisteredModels, check_unused, find
from servemu.registry.names import check_name
from servemu.registry.published import published_versions
from servemu.workspace import Workspaces
from servemu_state import registered_models as repository
from servemu_state.database import Connection, Database
from servemu_state.records import JsonObject, ModelVersion, RegisteredModel, VersionStatus

ALIAS = re.compile(r"(?!latest$|v?\d+$)[\w-]{1,255}", re.IGNORECASE)
"""What MLflow's client lets through (`_validate_model_alias_name`), and no bare number."""

Step = Callable[[ModelVersion], ModelVersion]


class Artifacts(Protocol):
    """The files of versions, kept under the id of the model."""

    def check_whole(self, model_id: str, version: int) -> None:
        """Raises `InvalidParameter` if an upload is open or nothing was uploaded."""

    def forget(self, model_id: str, version: int | None = None) -> None:
        """Remove the files of a version, or of all of them."""


@dataclass(frozen=True, slots=True)
class NewVersion:
    """What a client says of a version before its files come."""

    source: str = ""
    run_id: str = ""
    description: str = ""
    tags: Pairs = ()
    details: JsonObject = field(default_factory=dict)
    status: VersionStatus = VersionStatus.PENDING


class ModelVersions:
    """The versions of all models. `Raises` of every method: `InvalidParameter` (the name),
    `ModelNotFound`, and of those that write `PermissionDenied`."""

    def __init__(
        self,
        db: Database,
        models: RegisteredModels,
        artifacts: Artifacts,
        catalog: Catalog,
        workspaces: Workspaces,
    ) -> None:
        self._db = db
        self._models = models
        self._artifacts = artifacts
        self._catalog = catalog
        self._workspaces = workspaces

    def create(
        self, caller: Principal, name: str, new: NewVersion
    ) -> tuple[RegisteredModel, ModelVersion]:
        """The next version, which waits for its files."""
        check_name(name)
        now = self._workspaces.now(caller.workspace)
        with self._db.write() as connection:
            model = self._models.change_within(
                connection, caller, name, lambda m: replace(m, last_version=m.last_version + 1)
            )
            version = ModelVersion(
                model_id=model.id,
                version=model.last_version,
                status=new.status,
                creator=caller.user,
                created_at=now,
                updated_at=now,
                updated_by=caller.user,
                description=new.description,
                source=new.source,
                run_id=new.run_id,
                tags=new.tags,
                details=new.details,
            )
            repository.insert_version(connection, version)
        return model, version

    def get(self, workspace: str, name: str, version: int) -> tuple[RegisteredModel, ModelVersion]:
        check_name(name)
        with self._db.read() as connection:
            model = find(connection, self._catalog, workspace, name)
            return model, self._version(connection, model, version)

    def list_all(self, workspace: str, name: str) -> tuple[RegisteredModel, list[ModelVersion]]:
        """Newest first."""
        check_name(name)
        with self._db.read() as connection:
            model = find(connection, self._catalog, workspace, name)
            if not model.id:
                return model, published_versions(self._catalog, name)
            return model, repository.list_versions(connection, model.id)

    def search(
        self, workspace: str, name: str
    ) -> tuple[RegisteredModel | None, list[ModelVersion]]:
        """As `list_all`, of a model that need not be there."""
        try:
            return self.list_all(workspace, name)
        except ModelNotFound:
            return None, []

    def by_alias(
        self, workspace: str, name: str, alias: str
    ) -> tuple[RegisteredModel, ModelVersion]:
        """Raises also `AliasNotFound`."""
        check_name(name)
        with self._db.read() as connection:
            model = find(connection, self._catalog, workspace, name)
            for named, version in model.aliases:
                if named == alias:
                    return model, self._version(connection, model, version)
        raise AliasNotFound(name, alias)

    def set_alias(self, caller: Principal, name: str, alias: str, version: int) -> RegisteredModel:
        """An alias names one version: a second setting moves it."""
        check_name(name)
        if ALIAS.fullmatch(alias) is None:
            raise InvalidParameter(f"{ascii(alias[:100])} is not a valid alias name.")
        with self._db.write() as connection:
            model = self._models.owned(connection, caller, name)
            self._version(connection, model, version)
            others = tuple(pair for pair in model.aliases if pair[0] != alias)
            aliases = (*others, (alias, version))
            return self._models.change_within(
                connection, caller, name, lambda m: replace(m, aliases=aliases)
            )

    def drop_alias(self, caller: Principal, name: str, alias: str) -> RegisteredModel:
        """One that is not there: nothing happens."""
        return self._models.change(
            caller,
            name,
            lambda m: replace(m, aliases=tuple(p for p in m.aliases if p[0] != alias)),
        )

    def change(
        self, caller: Principal, name: str, version: int, step: Step
    ) -> tuple[RegisteredModel, ModelVersion]:
        """The version after `step`, stored."""
        check_name(name)
        now = self._workspaces.now(caller.workspace)
        with self._db.write() as connection:
            model = self._models.owned(connection, caller, name)
            before = self._version(connection, model, version)
            after = replace(step(before), updated_at=now, updated_by=caller.user)
            repository.save_version(connection, after)
        return model, after

    def finalize(
        self, caller: Principal, name: str, version: int
    ) -> tuple[RegisteredModel, ModelVersion]:
        """READY, if its files are there and whole. Raises also `InvalidParameter`."""

        def step(found: ModelVersion) -> ModelVersion:
            if found.status is not VersionStatus.READY:
                self._artifacts.check_whole(found.model_id, version)
            return replace(found, status=VersionStatus.READY)

        return self.change(caller, name, version, step)

    def delete(self, caller: Principal, name: str, version: int) -> None:
        """With its files and aliases. Raises also `ModelInUse`."""
        check_name(name)
        with self._db.write() as connection:
            model = self._models.owned(connection, caller, name)
            self._version(connection, model, version)
            check_unused(connection, model, str(version))
            kept = tuple(pair for pair in model.aliases if pair[1] != version)
            repository.delete_version(connection, model.id, version)
            self._models.change_within(connection, caller, name, lambda m: replace(m, aliases=kept))
        self._artifacts.forget(model.id, version)

    def delete_model(self, caller: Principal, name: str) -> None:
        """With all versions and files. Raises also `ModelInUse`."""
        check_name(name)
        with self._db.write() as connection:
            model = self._models.owned(connection, caller, name)
            check_unused(connection, model)
            repository.delete(connection, model.id)
        self._artifacts.forget(model.id)

    def _version(
        self, connection: Connection, model: RegisteredModel, version: int
    ) -> ModelVersion:
        if not model.id:
            published = published_versions(self._catalog, model.name)
            found = next((one for one in published if one.version == version), None)
        else:
            found = repository.get_version(connection, model.id, version)
        if found is None:
            raise ModelNotFound(model.name, str(version))
        return found
