"""The model behind a name and a version: the catalogue's, or one that somebody registered."""

import shutil
import uuid
from dataclasses import replace
from pathlib import Path

from servemu.catalog import Catalog, CatalogModel
from servemu.errors import InvalidParameter, ModelNotFound
from servemu.registry.eligibility import Eligible, Ineligible, examine
from servemu.registry.files import ArtifactFiles, serving
from servemu.registry.marketplace import SOURCE, find_listing
from servemu_state import registered_models as repository
from servemu_state.database import Database
from servemu_state.records import RegisteredModel, ServedEntity, VersionStatus

PARTS = ("model", "components/tokenizer")
"""Weights, and where MLflow puts the tokenizer (facts/uc_registry §3); later ones win."""

LONGEST_REFUSAL = 1000


class ModelLookup:
    """Finds what can be served. What was read of an upload is kept: READY versions never change."""

    def __init__(self, catalog: Catalog, db: Database, files: ArtifactFiles) -> None:
        self.catalog = catalog
        self._db = db
        self._files = files
        self._read: dict[tuple[str, int], CatalogModel] = {}

    def find(self, workspace: str, name: str, version: str | None) -> CatalogModel:
        """The model, with the newest READY version where none is asked for (GUESS).

        Raises `ModelNotFound` for the name, then for the version; `InvalidParameter` for a version
        that is still being uploaded (GUESS).
        """
        published = self.catalog.model(name)
        if published is not None:
            if version is not None and version not in published.versions:
                raise ModelNotFound(name, version)
            return published
        with self._db.read() as connection:
            model = repository.get(connection, workspace, name)
            if model is None:
                raise ModelNotFound(name)
            versions = repository.list_versions(connection, model.id)
        ready = [one for one in versions if one.status is VersionStatus.READY]
        newest = next(iter(ready or versions), None)
        wanted = version or ("1" if newest is None else str(newest.version))
        found = next((one for one in versions if str(one.version) == wanted), None)
        if found is None:
            raise ModelNotFound(name, wanted)
        if found.status is not VersionStatus.READY:
            raise InvalidParameter(
                f"Model Version (name='{name}', version={wanted}) is not READY: {found.status}."
            )
        return self._registered(model, found.version)

    def of(self, entity: ServedEntity) -> CatalogModel | None:
        """What the entity serves; None: an external model, or one that is no longer there.

        Asked within transactions too, and of anything after a restart.
        """
        if entity.model_id is None:
            return self.catalog.model(entity.entity_name or "")
        version = int(entity.entity_version or 0)
        known = self._read.get((entity.model_id, version))
        if known is not None and known.folder is not None and known.folder.exists():
            return known
        self._read.pop((entity.model_id, version), None)
        with self._db.look() as connection:
            model = repository.get_by_id(connection, entity.model_id)
            if model is None or repository.get_version(connection, model.id, version) is None:
                return None
        return self._registered(model, version)

    def forget(self, model_ids: list[str]) -> None:
        """They are gone."""
        for key in [key for key in self._read if key[0] in model_ids]:
            del self._read[key]

    def _registered(self, model: RegisteredModel, version: int) -> CatalogModel:
        key = (model.id, version)
        known = self._read.get(key)
        if known is None or known.full_name != model.name:
            known = self._read[key] = self._listed(model, version) or self._examine(model, version)
        return known

    def _listed(self, model: RegisteredModel, version: int) -> CatalogModel | None:
        """What a version that came from the Marketplace is; None: it was uploaded."""
        with self._db.look() as connection:
            found = repository.get_version(connection, model.id, version)
        if found is None or not found.source.startswith(SOURCE):
            return None
        listed = find_listing(self.catalog, found.source.removeprefix(SOURCE))
        return replace(listed, full_name=model.name, versions=(str(version),), model_id=model.id)

    def _examine(self, model: RegisteredModel, version: int) -> CatalogModel:
        folder = self._files.folder_of(model.id, version)
        refusal = None
        try:
            found = examine(folder, self.catalog)
        except Ineligible as why:
            refusal = _one_line(
                f"Model '{model.name}' version {version} cannot be served: {why.why}"
            )
            found = Eligible("llm/v1/chat", self.catalog.families["mistral-7b"])
        weights = f"{model.name}/{version}#{model.id[:8]}"
        return CatalogModel(
            full_name=model.name,
            versions=(str(version),),
            family=replace(found.family, stand_in=weights),
            task=found.task,
            served_name=model.name.rpartition(".")[2],
            chunk=found.family.chunk,
            refusal=refusal,
            model_id=model.id,
            folder=folder,
        )


def _one_line(text: str) -> str:
    """Fit for a header, whatever the upload says of itself."""
    return " ".join(text.split()).encode("ascii", "backslashreplace").decode()[:LONGEST_REFUSAL]


def serving_folder(upload: Path) -> Path:
    """Weights and tokenizer side by side, as transformers wants them: links into the upload.

    Made once, for READY versions never change; of two that make it at a time one's is kept.
    """
    folder = serving(upload)
    if folder.is_dir():
        return folder
    fresh = folder.with_name(f"{folder.name}.{uuid.uuid4().hex}")
    fresh.mkdir(parents=True)
    for part in PARTS:
        for file in sorted((upload / part).glob("*")):
            link = fresh / file.name
            link.unlink(missing_ok=True)
            link.symlink_to(Path("..", upload.name, part, file.name))
    try:
        fresh.rename(folder)
    except OSError:  # another one is there
        shutil.rmtree(fresh)
    return folder
