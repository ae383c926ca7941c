"""Where a path of the Files API is kept, and who may read and write there."""

from pathlib import PurePosixPath
from typing import Protocol

from servemu.auth import Principal
from servemu.errors import ArtifactNotFound, InvalidParameter, PermissionDenied
from servemu.registry.files import MODELS, Place, check_path, folder_of_runs
from servemu.registry.versions import ModelVersions
from servemu_state.records import VersionStatus


class Registered(Protocol):
    """The part of the world that is needed here."""

    @property
    def versions(self) -> ModelVersions: ...


def place_of(registered: Registered, caller: Principal, path: str, *, write: bool = False) -> Place:
    """`/Models/<catalog>/<schema>/<model>/<version>[/…]`, or the artifacts of a run or of a logged
    model, which MLflow 3 has below `/WorkspaceInternal/Mlflow/Artifacts` (facts/uc_registry §2).

    Raises `ArtifactNotFound`, `InvalidParameter`, `ModelNotFound`, `PermissionDenied`.
    """
    if not path.startswith("/"):
        raise InvalidParameter(f"The path must begin with a slash: {ascii(path[:200])}")
    inside = check_path(path.strip("/"))
    match inside.parts:
        case ("Models", catalog, schema, model, version, *rest):
            name = f"{catalog}.{schema}.{model}"
            return _of_version(registered, caller, (name, version, rest), write=write)
        case ("WorkspaceInternal", "Mlflow", "Artifacts", *rest):
            _check_inside(path, rest, write=write)
            return Place(folder_of_runs(caller.workspace), PurePosixPath(*rest))
    raise ArtifactNotFound(path)


def _of_version(
    registered: Registered,
    caller: Principal,
    named: tuple[str, str, list[str]],
    *,
    write: bool,
) -> Place:
    name, number, rest = named
    if not number.isdecimal() or len(number) > 9:
        raise ArtifactNotFound(f"{name}/{number}")
    model, version = registered.versions.get(caller.workspace, name, int(number))
    if not model.id:
        raise PermissionDenied(f"The weights of '{name}' cannot be read or written.")
    if write and version.status is VersionStatus.READY:
        raise PermissionDenied(
            f"Version {number} of model '{name}' is registered: it is read-only."
        )
    if write and not (caller.is_admin or caller.user in (model.owner, version.creator)):
        raise PermissionDenied(f"User does not have MANAGE on Routine or Model '{name}'.")
    _check_inside(f"{name}/{number}", rest, write=write)
    return Place((MODELS, model.id, str(version.version)), PurePosixPath(*rest))


def _check_inside(path: str, rest: list[str], *, write: bool) -> None:
    """The folder of a version, or of all runs, is no file that somebody could put or delete."""
    if write and not rest:
        raise InvalidParameter(f"The path names no file: {ascii(path[:200])}")
