"""The models that need no upload, `system.ai` above all, as the registry shows them."""

from servemu.catalog import Catalog, CatalogModel
from servemu_state.records import ModelVersion, RegisteredModel, VersionStatus

OWNER = "System user"


def published_model(catalog: Catalog, workspace: str, name: str) -> RegisteredModel | None:
    """The catalogue's model of that name, or None. It has no id: nothing of it is stored."""
    model = catalog.model(name)
    return None if model is None else _model(workspace, model)


def published_models(catalog: Catalog, workspace: str, within: str) -> list[RegisteredModel]:
    """Those whose names begin with `within`, by name."""
    found = sorted(name for name in catalog.models if name.startswith(within))
    return [_model(workspace, catalog.models[name]) for name in found]


def published_versions(catalog: Catalog, name: str) -> list[ModelVersion]:
    """The versions of such a model, newest first."""
    model = catalog.models[name]
    numbers = sorted((int(version) for version in model.versions), reverse=True)
    return [
        ModelVersion(
            model_id="",
            version=number,
            status=VersionStatus.READY,
            creator=OWNER,
            created_at=0.0,
            updated_at=0.0,
            updated_by=OWNER,
        )
        for number in numbers
    ]


def _model(workspace: str, model: CatalogModel) -> RegisteredModel:
    return RegisteredModel(
        id="",
        workspace=workspace,
        name=model.full_name,
        owner=OWNER,
        created_at=0.0,
        updated_at=0.0,
        updated_by=OWNER,
        description=f"{model.family.name}, task {model.task}",
        last_version=max(int(version) for version in model.versions),
    )
