"""All settings: flags, `SERVEMU_*` variables, `servemu.toml`. Nobody else reads the environment."""

from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from servemu.schemas.replies import Reply


class Connection(BaseModel):
    """A Unity Catalog connection, for `external-function`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    host: str = Field(pattern=r"^https?://[^/]+", description="With scheme, port and base path.")
    bearer_token: SecretStr | None = None


class Settings(BaseSettings):
    """What can be set, with its default. First flags, then variables, then the file."""

    model_config = SettingsConfigDict(env_prefix="SERVEMU_", extra="forbid", frozen=True)

    host: str = "127.0.0.1"
    port: int = Field(8484, ge=0, le=65535, description="0 picks a free one.")
    database: str = Field(":memory:", description="A file, a SQLAlchemy URL, or :memory:.")
    engine: Literal["local", "synthetic", "remote"] = "local"
    speedup: float = Field(
        60.0, gt=0, description="Lifecycle durations are the real service's, divided by this."
    )
    clock: Literal["real", "paused"] = Field(
        "real", description="paused: workspaces' clocks move only when they are advanced."
    )
    seed: int | None = Field(
        None, description="Same seed, same ids, draws and texts; none: fresh ones every time."
    )
    journal_size: int = Field(10_000, gt=0, description="Requests kept of each workspace.")
    auth: Literal["open", "strict"] = Field(
        "open", description="open: any token is somebody. strict: only those of `tokens`."
    )
    tokens: tuple[str, ...] | dict[str, str] = Field(
        (), description="The tokens that strict auth accepts, or token -> workspace[.user]."
    )
    clients: dict[str, str] = Field(
        default_factory=dict, description="OAuth clients that strict auth accepts: id -> secret."
    )
    model_store: Path = Field(Path("~/.cache/servemu/models"), description="Converted weights.")
    remote_url: str = Field(
        "http://127.0.0.1:8000/v1", description="An OpenAI-compatible server, for engine remote."
    )
    remote_model: str | None = Field(None, description="None: the first that the server lists.")
    remote_embedding_model: str | None = Field(None, description="None: as `remote_model`.")
    remote_key: SecretStr | None = Field(None, description="Bearer token for the remote server.")
    artifacts: Path | None = Field(
        None,
        description="Folder of uploaded models. None: beside the database's file; of a database in "
        "memory, a folder that goes with the process.",
    )
    catalogs: tuple[str, ...] = Field(
        (),
        description="Catalogs and schemas (`main`, `main.nlp`) in which models can be registered; "
        "none given: any, as if they had been made before.",
    )
    ai_gateway: bool = Field(
        False,
        description="Answer /ai-gateway/mlflow/v1; off: the real 404, and clients go elsewhere.",
    )
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, …")
    cuda_graphs: bool = Field(
        True, description="On one GPU: decoding steps are captured once and replayed."
    )
    dtype: Literal["auto", "float32", "int16", "bfloat16"] = Field(
        "auto",
        description="auto: float32 on CPU (greedy text independent of the batch). int16: the "
        "compiled step with integers in blocks, faster and as independent; elsewhere float32.",
    )
    runner: Literal["auto", "transformers", "compiled"] = Field(
        "auto",
        description="compiled: a step of C, built by the machine's compiler, for Llama-like models "
        "on CPU. auto: that where it can be had, else transformers.",
    )
    max_sequences: int = Field(256, gt=0, description="Answers that one engine generates at once.")
    max_kv_bytes: int | None = Field(
        None,
        gt=0,
        description="Of the keys and values of one engine: what does not fit waits. None: what is "
        "free once it is loaded, shared among max_resident_models; on CPU at most 4 GiB, of which "
        "only what is written takes memory.",
    )
    max_resident_models: int = Field(4, gt=0, description="Idle ones past this are unloaded.")
    max_resident_bytes: int | None = Field(
        None, gt=0, description="Of the weights in memory; a load past this fails. None: no bound."
    )
    max_body_bytes: int = Field(
        4 * 1024 * 1024, gt=0, description="Foundation models take 4 MB (facts/data_plane §5)."
    )
    request_timeout: float = Field(
        297.0, gt=0, description="Seconds; the documented limit (facts/data_plane §5)."
    )
    max_queue_seconds: float = Field(
        10.0, gt=0, description="A request that would wait longer for its tokens gets a 429."
    )
    max_queue_tokens: int = Field(
        1_000_000, gt=0, description="Tokens of all waiting prompts of an entity; then a 429."
    )
    max_concurrency: int = Field(
        1024, gt=0, description="Requests of one served entity at a time (facts/data_plane §5)."
    )
    max_workspace_concurrency: int = Field(
        4096, gt=0, description="Requests of one workspace at a time (facts/data_plane §5)."
    )
    max_workspace_qps: float = Field(
        200.0,
        gt=0,
        le=1e9,
        description="Queries/s of one workspace to provisioned endpoints (facts/data_plane §5).",
    )
    pace: Literal["budget", "model"] = Field(
        "budget",
        description="budget: as fast as budget and engine allow. model: no faster than the model "
        "that is played, by ttft_ms and tpot_ms of its family.",
    )
    burst_scaling_factor: float = Field(
        2.0, ge=1, le=100, description="Model units: highest rate of a burst (GUESS)."
    )
    burst_scaling_seconds: float = Field(
        10.0, ge=0, le=3600, description="Model units: unused time that a burst may use (GUESS)."
    )
    throughput_grid: Literal["lenient", "strict"] = Field(
        "lenient",
        description="lenient: sizes are rounded up to the chunk. strict: others are refused. "
        "No rejection was ever seen (facts/provisioned_throughput §2).",
    )
    autoscaling: bool = Field(
        True, description="Replicas follow the load; false: entities stand at their maximum."
    )
    throughput_scale: float = Field(
        1.0, gt=0, le=1, description="Shrinks every token budget, for slow machines."
    )
    connections: dict[str, Connection] = Field(
        default_factory=dict, description="What external-function may call, by name."
    )
    external_function_hosts: tuple[str, ...] = Field(
        (), description="Globs of hosts it may call besides this machine."
    )
    replies: tuple[Reply, ...] = Field(
        (), description="Scripted replies of every workspace: [[replies]] in servemu.toml."
    )
    faults: tuple[dict[str, Any], ...] = Field(
        (), description="Fault rules of every workspace: [[faults]], as POST /_emulator/faults."
    )
    capacity: dict[str, int] = Field(
        default_factory=dict, description="GPU replicas a workspace has, by workload type."
    )
    catalog: dict[str, Any] = Field(
        default_factory=dict, description="Your own families and models, or other values for ours."
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        toml = TomlConfigSettingsSource(settings_cls)
        return init_settings, env_settings, toml


def load_settings(config: Path | None, **flags: object) -> Settings:
    """Settings from a file, the environment and the flags that were given (None: not given).

    Raises pydantic's `ValidationError`, `OSError`, `tomllib.TOMLDecodeError`.
    """
    given = {name: value for name, value in flags.items() if value is not None}
    if config is None:
        return Settings(**given)  # type: ignore[arg-type]
    with config.open("rb"):  # pydantic-settings passes over a file that is not there
        pass

    class FileSettings(Settings):
        model_config = SettingsConfigDict(toml_file=config)

    return FileSettings(**given)  # type: ignore[arg-type]
