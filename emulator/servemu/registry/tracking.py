"""MLflow's tracking, as far as logging a model needs it: experiments, runs, logged models.

Field names: MLflow's `service.proto`; which routes are asked: facts/uc_registry §2.
"""

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from servemu.auth import Principal
from servemu.errors import InvalidParameter, ResourceNotFound, TrackedExists
from servemu.workspace import Workspaces
from servemu_state import tracking
from servemu_state.database import Connection, Database
from servemu_state.records import Tracked

ARTIFACTS = "dbfs:/databricks/mlflow-tracking"
"""MLflow then asks the Files API below `/WorkspaceInternal/Mlflow/Artifacts` (§2)."""

Document = dict[str, Any]
Step = Callable[[Document], None]


class Tracking:
    """All workspaces' tracking. Times are ms, on the workspace's clock."""

    def __init__(self, db: Database, workspaces: Workspaces) -> None:
        self._db = db
        self._workspaces = workspaces

    def create_experiment(self, caller: Principal, name: str, tags: Sequence[Document] = ()) -> str:
        """Its id. Raises `TrackedExists`, `InvalidParameter`."""
        with self._db.write() as connection:
            if self._named(connection, caller.workspace, name) is not None:
                raise TrackedExists(f"Node named '{name}' already exists")
            return self._new_experiment(connection, caller.workspace, name, tags)

    def experiment(self, workspace: str, *, id: str = "", name: str = "") -> Document:
        """By id or by name. Raises `ResourceNotFound`."""
        with self._db.read() as connection:
            if name:
                found = self._named(connection, workspace, name)
            else:
                found = tracking.get(connection, workspace, "experiment", id)
        if found is None:
            raise ResourceNotFound(f"Could not find experiment with {_which(id, name)}")
        return dict(found.document)

    def create_run(self, caller: Principal, given: Mapping[str, Any]) -> Document:
        """In the experiment that is given, else in the caller's own. Raises `ResourceNotFound`."""
        now = self._now(caller.workspace)
        run_id = uuid.uuid4().hex
        with self._db.write() as connection:
            experiment = self._chosen(connection, caller, given)
            info = {
                "run_id": run_id,
                "run_uuid": run_id,
                "run_name": given.get("run_name") or f"run-{run_id[:8]}",
                "experiment_id": experiment,
                "user_id": given.get("user_id") or caller.user,
                "status": "RUNNING",
                "start_time": given.get("start_time") or now,
                "artifact_uri": f"{ARTIFACTS}/{experiment}/{run_id}/artifacts",
                "lifecycle_stage": "active",
            }
            data = {"metrics": [], "params": [], "tags": list(given.get("tags") or [])}
            document: Document = {"info": info, "data": data, "outputs": {"model_outputs": []}}
            tracking.insert(
                connection, Tracked(caller.workspace, "run", run_id, experiment, document)
            )
        return document

    def create_logged_model(self, caller: Principal, given: Mapping[str, Any]) -> Document:
        """PENDING until it is finalised. Raises `ResourceNotFound`."""
        now = self._now(caller.workspace)
        model_id = f"m-{uuid.uuid4().hex}"
        with self._db.write() as connection:
            experiment = self._chosen(connection, caller, given)
            info = {
                "model_id": model_id,
                "experiment_id": experiment,
                "name": given.get("name") or "model",
                "creation_timestamp_ms": now,
                "last_updated_timestamp_ms": now,
                "artifact_uri": f"{ARTIFACTS}/{experiment}/logged_models/{model_id}",
                "status": "LOGGED_MODEL_PENDING",
                "model_type": given.get("model_type") or "",
                "source_run_id": given.get("source_run_id") or "",
                "tags": list(given.get("tags") or []),
            }
            document: Document = {
                "info": info,
                "data": {"params": list(given.get("params") or []), "metrics": []},
            }
            tracking.insert(
                connection, Tracked(caller.workspace, "model", model_id, experiment, document)
            )
        return document

    def get(self, workspace: str, kind: str, id: str) -> Document:
        """A run or a logged model. Raises `ResourceNotFound`."""
        with self._db.read() as connection:
            return dict(_existing(connection, workspace, kind, id).document)

    def list_all(self, workspace: str, kind: str, experiments: Iterable[str]) -> list[Document]:
        """Those of the experiments, newest first."""
        wanted = set(experiments)
        with self._db.read() as connection:
            found = tracking.list_all(connection, workspace, kind)
        return [dict(one.document) for one in found if one.parent in wanted]

    def change(self, workspace: str, kind: str, id: str, step: Step) -> Document:
        """The document after `step`, stored. Raises `ResourceNotFound`."""
        with self._db.write() as connection:
            found = _existing(connection, workspace, kind, id)
            document = dict(found.document)
            step(document)
            tracking.save(connection, Tracked(workspace, kind, id, found.parent, document))
        return document

    def now(self, workspace: str) -> int:
        """ms."""
        return self._now(workspace)

    def _now(self, workspace: str) -> int:
        return int(self._workspaces.now(workspace) * 1000)

    def _chosen(self, connection: Connection, caller: Principal, given: Mapping[str, Any]) -> str:
        """The experiment that is given, else the caller's own. Raises `ResourceNotFound`."""
        id: str = given.get("experiment_id") or self._own(connection, caller)
        if tracking.get(connection, caller.workspace, "experiment", id) is None:
            raise ResourceNotFound(f"Could not find experiment with {_which(id, '')}")
        return id

    def _own(self, connection: Connection, caller: Principal) -> str:
        """The experiment of runs that name none: a notebook's own, on the real service."""
        name = f"/Users/{caller.user}/servemu"
        found = self._named(connection, caller.workspace, name)
        if found is not None:
            return found.id
        return self._new_experiment(connection, caller.workspace, name)

    def _named(self, connection: Connection, workspace: str, name: str) -> Tracked | None:
        all_ = tracking.list_all(connection, workspace, "experiment")
        return next((one for one in all_ if one.document["name"] == name), None)

    def _new_experiment(
        self, connection: Connection, workspace: str, name: str, tags: Sequence[Document] = ()
    ) -> str:
        if not name.startswith("/"):
            raise InvalidParameter(
                f"Got an invalid experiment name '{name[:200]}'. An experiment name must be an "
                "absolute path within the Databricks workspace."
            )
        id, now = str(uuid.uuid4().int % 10**16), self._now(workspace)
        document = {
            "experiment_id": id,
            "name": name,
            "artifact_location": f"{ARTIFACTS}/{id}",
            "lifecycle_stage": "active",
            "creation_time": now,
            "last_update_time": now,
            "tags": list(tags),
        }
        tracking.insert(connection, Tracked(workspace, "experiment", id, "", document))
        return id


def put_pair(pairs: list[Document], pair: Document) -> list[Document]:
    """The list with this key's value set."""
    return [*(one for one in pairs if one["key"] != pair["key"]), pair]


def put_param(params: list[Document], param: Document) -> list[Document]:
    """As `put_pair`, of what never changes (DOC, MLflow). Raises `InvalidParameter`."""
    for one in params:
        if one["key"] == param["key"] and one["value"] != param["value"]:
            raise InvalidParameter(
                f"Changing param values is not allowed. Param with key='{param['key'][:100]}' was "
                f"already logged with value='{one['value'][:100]}'."
            )
    return put_pair(params, param)


def _existing(connection: Connection, workspace: str, kind: str, id: str) -> Tracked:
    found = tracking.get(connection, workspace, kind, id)
    if found is None:
        shown = {"run": "Run", "model": "Logged model"}[kind]
        raise ResourceNotFound(f"{shown} with id={id[:100]} not found")
    return found


def _which(id: str, name: str) -> str:
    return f"name '{name[:200]}'" if name else f"ID {id[:100]}"
