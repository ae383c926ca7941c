"""Bodies of MLflow's tracking (`service.proto`; facts/uc_registry §2). Times are ms."""

from typing import Any, Literal

from pydantic import Field, field_validator

from servemu.errors import InvalidParameter
from servemu.schemas.wire import Int64, Wire


class Pair(Wire):
    key: str = Field(min_length=1)
    value: str = ""


class Metric(Wire):
    key: str = Field(min_length=1)
    value: float | Literal["NaN", "Infinity", "-Infinity"]
    """The words are protobuf's JSON."""
    timestamp: Int64 = 0
    step: Int64 = 0


class CreateExperiment(Wire):
    name: str = Field(min_length=1)
    tags: tuple[Pair, ...] = ()


class CreateRun(Wire):
    experiment_id: str | None = None
    user_id: str | None = None
    run_name: str | None = None
    start_time: Int64 | None = None
    tags: tuple[Pair, ...] = ()


class OfRun(Wire):
    """Older clients say `run_uuid`."""

    run_id: str = ""
    run_uuid: str = ""

    @property
    def id(self) -> str:
        """Raises `InvalidParameter`."""
        if not self.run_id and not self.run_uuid:
            raise InvalidParameter("Missing required field: run_id")
        return self.run_id or self.run_uuid


class UpdateRun(OfRun):
    status: Literal["RUNNING", "SCHEDULED", "FINISHED", "FAILED", "KILLED"] | None = None
    end_time: Int64 | None = None
    run_name: str | None = None


class RunPair(OfRun):
    key: str = Field(min_length=1)
    value: str = ""

    def pair(self) -> dict[str, Any]:
        return {"key": self.key, "value": self.value}


class LogMetric(OfRun, Metric):
    def metric(self) -> dict[str, Any]:
        return self.model_dump(include={"key", "value", "timestamp", "step"})


class LogBatch(OfRun):
    metrics: tuple[Metric, ...] = ()
    params: tuple[Pair, ...] = ()
    tags: tuple[Pair, ...] = ()


class LogOutputs(OfRun):
    models: tuple[dict[str, Any], ...] = ()


class CreateLoggedModel(Wire):
    experiment_id: str | None = None
    name: str | None = None
    model_type: str | None = None
    source_run_id: str | None = None
    params: tuple[Pair, ...] = ()
    tags: tuple[Pair, ...] = ()


class FinalizeLoggedModel(Wire):
    status: Literal["LOGGED_MODEL_PENDING", "LOGGED_MODEL_READY", "LOGGED_MODEL_UPLOAD_FAILED"]


class LoggedModelParams(Wire):
    params: tuple[Pair, ...] = ()


class TagLoggedModel(Wire):
    tags: tuple[Pair, ...] = ()


class SearchLoggedModels(Wire):
    experiment_ids: tuple[str, ...] = ()
    max_results: Int64 = Field(100, ge=0, le=1000)


class SearchRuns(Wire):
    experiment_ids: tuple[str, ...] = ()
    max_results: Int64 = Field(1000, ge=0, le=50_000)


class ArtifactCredentials(OfRun):
    path: tuple[str, ...]

    @field_validator("path", mode="before")
    @classmethod
    def _one_or_many(cls, given: Any) -> Any:
        return (given,) if isinstance(given, str) else given


class CreateArtifactUpload(OfRun):
    path: str = Field(min_length=1)
    num_parts: Int64 = Field(ge=1, le=10_000)


class ArtifactPart(OfRun):
    path: str = Field(min_length=1)
    upload_id: str
    part_number: Int64 = Field(1, ge=1, le=10_000)


class PartEtag(Wire):
    part_number: Int64 = Field(ge=1)
    etag: str


class CompleteArtifactUpload(OfRun):
    path: str = Field(min_length=1)
    upload_id: str
    part_etags: tuple[PartEtag, ...]
