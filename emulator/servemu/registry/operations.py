"""Names of what the registry's, the Files API's and tracking's routes do, as fault rules say them:
`registry.<call>` (design §10), `tracking.<call>`.

The calls are those of MLflow's `UcModelRegistryService` and `MlflowService`. The 2.1 routes have
the same names, for they do the same. Signed URLs have none: they carry no workspace to look for
rules in.
"""

_UC = r"/api/2\.0/mlflow/unity-catalog"
_MODELS = _UC + "/registered-models"
_VERSIONS = _UC + "/model-versions"
_CATALOG = r"/api/2\.1/unity-catalog/models"
_MODEL = _CATALOG + "/[^/]+"
_ALIAS = _MODEL + "/aliases/[^/]+"
_VERSION = _MODEL + "/versions/[^/]+"
_FS = r"/api/2\.0/fs"
_MLFLOW = r"/api/2\.0/mlflow"
_RUNS = _MLFLOW + "/runs"
_LOGGED = _MLFLOW + "/logged-models"
_ARTIFACTS = _MLFLOW + "/artifacts"

_REGISTRY = (
    ("POST", _MODELS + "/create", "create_registered_model"),
    ("GET", _MODELS + "/get", "get_registered_model"),
    ("GET", _MODELS + "/search", "search_registered_models"),
    ("PATCH", _MODELS + "/update", "update_registered_model"),
    ("DELETE", _MODELS + "/delete", "delete_registered_model"),
    ("POST", _MODELS + "/set-tag", "set_registered_model_tag"),
    ("DELETE", _MODELS + "/delete-tag", "delete_registered_model_tag"),
    ("POST", _MODELS + "/alias", "set_registered_model_alias"),
    ("GET", _MODELS + "/alias", "get_model_version_by_alias"),
    ("DELETE", _MODELS + "/alias", "delete_registered_model_alias"),
    (
        "GET",
        _MODELS + ":is-databricks-sdk-models-artifact-repository-enabled",
        "is_databricks_sdk_models_artifact_repository_enabled",
    ),
    ("POST", _VERSIONS + "/create", "create_model_version"),
    ("POST", _VERSIONS + "/finalize", "finalize_model_version"),
    ("GET", _VERSIONS + "/get", "get_model_version"),
    ("GET", _VERSIONS + "/search", "search_model_versions"),
    ("PATCH", _VERSIONS + "/update", "update_model_version"),
    ("DELETE", _VERSIONS + "/delete", "delete_model_version"),
    ("POST", _VERSIONS + "/set-tag", "set_model_version_tag"),
    ("DELETE", _VERSIONS + "/delete-tag", "delete_model_version_tag"),
    ("GET", _VERSIONS + "/get-download-uri", "get_model_version_download_uri"),
    ("POST", _VERSIONS + "/emit-lineage", "emit_model_version_lineage"),
    (
        "POST",
        _VERSIONS + "/generate-temporary-credentials",
        "generate_temporary_model_version_credentials",
    ),
    ("GET", _CATALOG, "search_registered_models"),
    ("POST", _CATALOG, "create_registered_model"),
    ("GET", _MODEL, "get_registered_model"),
    ("PATCH", _MODEL, "update_registered_model"),
    ("DELETE", _MODEL, "delete_registered_model"),
    ("GET", _ALIAS, "get_model_version_by_alias"),
    ("PUT", _ALIAS, "set_registered_model_alias"),
    ("DELETE", _ALIAS, "delete_registered_model_alias"),
    ("GET", _MODEL + "/versions", "search_model_versions"),
    ("GET", _VERSION, "get_model_version"),
    ("PATCH", _VERSION, "update_model_version"),
    ("DELETE", _VERSION, "delete_model_version"),
    ("GET|HEAD", _FS + "/files/.+", "download_file"),
    ("PUT", _FS + "/files/.+", "upload_file"),
    ("POST", _FS + "/files/.+", "upload_file_in_parts"),
    ("DELETE", _FS + "/files/.+", "delete_file"),
    ("GET|HEAD", _FS + "/directories/.+", "list_directory"),
    ("PUT", _FS + "/directories/.+", "create_directory"),
    ("POST", _FS + "/create-upload-part-urls", "create_upload_part_urls"),
    ("POST", _FS + "/create-abort-upload-url", "create_abort_upload_url"),
    ("POST", _FS + "/create-upload-url", "create_upload_url"),
    ("POST", _FS + "/create-download-url", "create_download_url"),
)
_TRACKING = (
    ("POST", _MLFLOW + "/experiments/create", "create_experiment"),
    ("GET", _MLFLOW + "/experiments/get", "get_experiment"),
    ("GET", _MLFLOW + "/experiments/get-by-name", "get_experiment_by_name"),
    ("POST", _RUNS + "/create", "create_run"),
    ("GET", _RUNS + "/get", "get_run"),
    ("POST", _RUNS + "/search", "search_runs"),
    ("POST", _RUNS + "/update", "update_run"),
    ("POST", _RUNS + "/log-parameter", "log_param"),
    ("POST", _RUNS + "/log-metric", "log_metric"),
    ("POST", _RUNS + "/log-batch", "log_batch"),
    ("POST", _RUNS + "/set-tag", "set_tag"),
    ("POST", _RUNS + "/outputs", "log_outputs"),
    ("POST", _RUNS + "/log-model", "log_model"),
    ("POST", _RUNS + "/log-inputs", "log_inputs"),
    ("POST", _LOGGED, "create_logged_model"),
    ("POST", _LOGGED + "/search", "search_logged_models"),
    ("GET", _LOGGED + "/[^/]+", "get_logged_model"),
    ("PATCH", _LOGGED + "/[^/]+", "finalize_logged_model"),
    ("PATCH", _LOGGED + "/[^/]+/tags", "set_logged_model_tags"),
    ("POST", _LOGGED + "/[^/]+/params", "log_logged_model_params"),
    ("POST", _ARTIFACTS + "/credentials-for-write", "get_credentials_for_write"),
    ("POST", _ARTIFACTS + "/credentials-for-read", "get_credentials_for_read"),
    ("GET", _ARTIFACTS + "/list", "list_artifacts"),
    ("POST", _ARTIFACTS + "/create-multipart-upload", "create_multipart_upload"),
    (
        "GET",
        _ARTIFACTS + "/get-presigned-upload-part-url",
        "get_presigned_upload_part_url",
    ),
    ("POST", _ARTIFACTS + "/complete-multipart-upload", "complete_multipart_upload"),
)

OPERATIONS = (
    *((methods, path, f"registry.{call}") for methods, path, call in _REGISTRY),
    *((methods, path, f"tracking.{call}") for methods, path, call in _TRACKING),
)
"""Methods (with `|` between), a pattern of the path, the name."""
