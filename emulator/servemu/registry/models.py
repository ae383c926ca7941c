"""What can be done to registered models, whoever's wire it came over. One writing class."""

import uuid
from collections.abc import Callable
from dataclasses import replace

from servemu.auth import Principal
from servemu.catalog import Catalog
from servemu.errors import (
    ModelInUse,
    ModelNotFound,
    PermissionDenied,
    RegisteredModelExists,
)
from servemu.registry.names import check_catalog, check_level, check_name
from servemu.registry.published import published_model, published_models
from servemu.workspace import Workspaces
from servemu_state import endpoints
from servemu_state import registered_models as repository
from servemu_state.database import Connection, Database
from servemu_state.errors import ModelExists
from servemu_state.records import RegisteredModel

Pairs = tuple[tuple[str, str], ...]
Step = Callable[[RegisteredModel], RegisteredModel]


class RegisteredModels:
    """The models of all workspaces; those of the catalogue stand among them and never change.

    Who may change a model: its owner, and admins. Everybody may read (GUESS: the privileges of
    Unity Catalog are not emulated).
    """

    def __init__(
        self, db: Database, workspaces: Workspaces, catalog: Catalog, known: tuple[str, ...] = ()
    ) -> None:
        """`known`: the catalogs and schemas there are; none: whichever is named."""
        self._db = db
        self._workspaces = workspaces
        self.catalog = catalog
        self._known = known

    def create(
        self, caller: Principal, name: str, description: str = "", tags: Pairs = ()
    ) -> RegisteredModel:
        """A new model without versions.

        Raises `InvalidParameter`, `CatalogNotFound`, `PermissionDenied`, `RegisteredModelExists`.
        """
        catalog, schema, _ = check_name(name)
        if self.catalog.model(name) is not None:
            raise RegisteredModelExists(name)
        if catalog == "system":
            raise PermissionDenied(
                f"User does not have CREATE MODEL on Schema '{catalog}.{schema}'."
            )
        check_catalog(self._known, catalog, schema)
        now = self._workspaces.now(caller.workspace)
        model = RegisteredModel(
            id=uuid.uuid4().hex,
            workspace=caller.workspace,
            name=name,
            owner=caller.user,
            created_at=now,
            updated_at=now,
            updated_by=caller.user,
            description=description,
            tags=tags,
        )
        try:
            with self._db.write() as connection:
                repository.insert(connection, model)
        except ModelExists:
            raise RegisteredModelExists(name) from None
        return model

    def get(self, workspace: str, name: str) -> RegisteredModel:
        """Raises `InvalidParameter`, `ModelNotFound`."""
        check_name(name)
        with self._db.read() as connection:
            return find(connection, self.catalog, workspace, name)

    def page(
        self,
        workspace: str,
        *,
        within: str = "",
        after: str = "",
        most: int,
        published: bool = True,
    ) -> list[RegisteredModel]:
        """At most `most` models by name: those after `after` whose names begin with `within`."""
        with self._db.read() as connection:
            stored = repository.list_some(
                connection, workspace, within=within, after=after, most=most
            )
        listed = published_models(self.catalog, workspace, within) if published else []
        found = [*stored, *(model for model in listed if model.name > after)]
        return sorted(found, key=lambda model: model.name)[:most]

    def change(self, caller: Principal, name: str, step: Step) -> RegisteredModel:
        """The model after `step`, stored.

        Raises `InvalidParameter`, `ModelNotFound`, `PermissionDenied`, and what `step` raises.
        """
        check_name(name)
        with self._db.write() as connection:
            return self.change_within(connection, caller, name, step)

    def change_within(
        self, connection: Connection, caller: Principal, name: str, step: Step
    ) -> RegisteredModel:
        """The same in a transaction of the caller's."""
        model = self.owned(connection, caller, name)
        now = self._workspaces.now(caller.workspace)
        changed = replace(step(model), updated_at=now, updated_by=caller.user)
        try:
            repository.save(connection, changed)
        except ModelExists:
            raise RegisteredModelExists(changed.name) from None
        return changed

    def rename(
        self, caller: Principal, name: str, new_name: str, step: Step = lambda model: model
    ) -> RegisteredModel:
        """Under `new_name`: three levels, or the last one only; changed by `step` as well.

        Raises also `RegisteredModelExists`, `CatalogNotFound`, `ModelInUse`.
        """
        catalog, schema, _ = check_name(name)
        if "." not in new_name:
            new_name = f"{catalog}.{schema}.{check_level(new_name)}"
        catalog, schema, _ = check_name(new_name)
        check_catalog(self._known, catalog, schema)
        if self.catalog.model(new_name) is not None:
            raise RegisteredModelExists(new_name)
        with self._db.write() as connection:
            check_unused(connection, self.owned(connection, caller, name))
            return self.change_within(
                connection, caller, name, lambda model: replace(step(model), name=new_name)
            )

    def owned(self, connection: Connection, caller: Principal, name: str) -> RegisteredModel:
        """The model, which the caller may change. Raises `ModelNotFound`, `PermissionDenied`."""
        model = find(connection, self.catalog, caller.workspace, name)
        is_published = not model.id
        if is_published or not (caller.is_admin or caller.user == model.owner):
            raise PermissionDenied(f"User does not have MANAGE on Routine or Model '{name}'.")
        return model


def find(connection: Connection, catalog: Catalog, workspace: str, name: str) -> RegisteredModel:
    """Raises `ModelNotFound`."""
    stored = repository.get(connection, workspace, name)
    model = stored or published_model(catalog, workspace, name)
    if model is None:
        raise ModelNotFound(name)
    return model


def tagged(pairs: Pairs, key: str, value: str | None) -> Pairs:
    """The tags with this one set; None: without it."""
    others = tuple(pair for pair in pairs if pair[0] != key)
    return others if value is None else (*others, (key, value))


def check_unused(
    connection: Connection, model: RegisteredModel, version: str | None = None
) -> None:
    """Whether no endpoint serves the model, or is to. Raises `ModelInUse`."""
    for endpoint in endpoints.list_all(connection, model.workspace):
        for deployment in (endpoint.active, endpoint.pending):
            for entity in () if deployment is None else deployment.entities:
                if entity.model_id == model.id and version in (None, entity.entity_version):
                    raise ModelInUse(model.name, version, endpoint.name)
