"""The routes of the registry, of its uploads and of the Files API."""

from starlette.routing import Route

from servemu.registry.signing import PREFIX
from servemu.routes.late import view

MLFLOW = "/api/2.0/mlflow/unity-catalog"
MODELS = MLFLOW + "/registered-models"
VERSIONS = MLFLOW + "/model-versions"
CATALOG = "/api/2.1/unity-catalog/models"
FILES = "/api/2.0/fs"
TRACKING = "/api/2.0/mlflow"
RUNS = TRACKING + "/runs"
LOGGED = TRACKING + "/logged-models"
ARTIFACTS = TRACKING + "/artifacts"

REGISTRY = [
    Route(MODELS + "/create", view("registry.create_model"), methods=["POST"]),
    Route(MODELS + "/get", view("registry.get_model"), methods=["GET"]),
    Route(MODELS + "/search", view("registry.search_models"), methods=["GET"]),
    Route(MODELS + "/update", view("registry.update_model"), methods=["PATCH"]),
    Route(MODELS + "/delete", view("registry.delete_model"), methods=["DELETE"]),
    Route(MODELS + "/set-tag", view("registry.set_model_tag"), methods=["POST"]),
    Route(MODELS + "/delete-tag", view("registry.delete_model_tag"), methods=["DELETE"]),
    Route(MODELS + "/alias", view("registry.set_alias"), methods=["POST"]),
    Route(MODELS + "/alias", view("registry.get_alias"), methods=["GET"]),
    Route(MODELS + "/alias", view("registry.delete_alias"), methods=["DELETE"]),
    Route(
        MODELS + ":is-databricks-sdk-models-artifact-repository-enabled",
        view("files.uses_files_api"),
        methods=["GET"],
    ),
    Route(VERSIONS + "/create", view("registry.create_version"), methods=["POST"]),
    Route(VERSIONS + "/finalize", view("registry.finalize_version"), methods=["POST"]),
    Route(VERSIONS + "/get", view("registry.get_version"), methods=["GET"]),
    Route(VERSIONS + "/search", view("registry.search_versions"), methods=["GET"]),
    Route(VERSIONS + "/update", view("registry.update_version"), methods=["PATCH"]),
    Route(VERSIONS + "/delete", view("registry.delete_version"), methods=["DELETE"]),
    Route(VERSIONS + "/set-tag", view("registry.set_version_tag"), methods=["POST"]),
    Route(VERSIONS + "/delete-tag", view("registry.delete_version_tag"), methods=["DELETE"]),
    Route(VERSIONS + "/get-download-uri", view("registry.download_uri"), methods=["GET"]),
    Route(VERSIONS + "/emit-lineage", view("registry.emit_lineage"), methods=["POST"]),
    Route(
        VERSIONS + "/generate-temporary-credentials", view("files.credentials"), methods=["POST"]
    ),
    Route(CATALOG, view("unity_catalog.list_models"), methods=["GET"]),
    Route(CATALOG, view("unity_catalog.create_model"), methods=["POST"]),
    Route(CATALOG + "/{full_name}", view("unity_catalog.get_model"), methods=["GET"]),
    Route(CATALOG + "/{full_name}", view("unity_catalog.update_model"), methods=["PATCH"]),
    Route(CATALOG + "/{full_name}", view("unity_catalog.delete_model"), methods=["DELETE"]),
    Route(
        CATALOG + "/{full_name}/aliases/{alias}",
        view("unity_catalog.get_by_alias"),
        methods=["GET"],
    ),
    Route(
        CATALOG + "/{full_name}/aliases/{alias}", view("unity_catalog.set_alias"), methods=["PUT"]
    ),
    Route(
        CATALOG + "/{full_name}/aliases/{alias}",
        view("unity_catalog.delete_alias"),
        methods=["DELETE"],
    ),
    Route(CATALOG + "/{full_name}/versions", view("unity_catalog.list_versions"), methods=["GET"]),
    Route(
        CATALOG + "/{full_name}/versions/{version}",
        view("unity_catalog.get_version"),
        methods=["GET"],
    ),
    Route(
        CATALOG + "/{full_name}/versions/{version}",
        view("unity_catalog.update_version"),
        methods=["PATCH"],
    ),
    Route(
        CATALOG + "/{full_name}/versions/{version}",
        view("unity_catalog.delete_version"),
        methods=["DELETE"],
    ),
    Route(FILES + "/files/{path:path}", view("files.get_file"), methods=["GET"]),
    Route(FILES + "/files/{path:path}", view("files.put_file"), methods=["PUT"]),
    Route(FILES + "/files/{path:path}", view("files.post_file"), methods=["POST"]),
    Route(FILES + "/files/{path:path}", view("files.delete_file"), methods=["DELETE"]),
    Route(FILES + "/directories/{path:path}", view("files.head_folder"), methods=["HEAD"]),
    Route(FILES + "/directories/{path:path}", view("files.get_folder"), methods=["GET"]),
    Route(FILES + "/directories/{path:path}", view("files.put_folder"), methods=["PUT"]),
    Route(FILES + "/create-upload-part-urls", view("files.part_urls"), methods=["POST"]),
    Route(FILES + "/create-abort-upload-url", view("files.abort_url"), methods=["POST"]),
    Route(FILES + "/create-upload-url", view("files.upload_url"), methods=["POST"]),
    Route(FILES + "/create-download-url", view("files.download_url"), methods=["POST"]),
    Route("/_emulator/listings", view("marketplace.list_listings"), methods=["GET"]),
    Route(
        "/_emulator/listings/{listing}/install",
        view("marketplace.install_listing"),
        methods=["POST"],
    ),
    Route(TRACKING + "/experiments/create", view("tracking.create_experiment"), methods=["POST"]),
    Route(TRACKING + "/experiments/get", view("tracking.get_experiment"), methods=["GET"]),
    Route(TRACKING + "/experiments/get-by-name", view("tracking.get_experiment"), methods=["GET"]),
    Route(RUNS + "/create", view("tracking.create_run"), methods=["POST"]),
    Route(RUNS + "/get", view("tracking.get_run"), methods=["GET"]),
    Route(RUNS + "/search", view("tracking.search_runs"), methods=["POST"]),
    Route(RUNS + "/update", view("tracking.update_run"), methods=["POST"]),
    Route(RUNS + "/log-parameter", view("tracking.log_parameter"), methods=["POST"]),
    Route(RUNS + "/log-metric", view("tracking.log_metric"), methods=["POST"]),
    Route(RUNS + "/log-batch", view("tracking.log_batch"), methods=["POST"]),
    Route(RUNS + "/set-tag", view("tracking.set_tag"), methods=["POST"]),
    Route(RUNS + "/outputs", view("tracking.log_outputs"), methods=["POST"]),
    Route(RUNS + "/log-model", view("tracking.accept"), methods=["POST"]),
    Route(RUNS + "/log-inputs", view("tracking.accept"), methods=["POST"]),
    Route(LOGGED, view("tracking.create_logged_model"), methods=["POST"]),
    Route(LOGGED + "/search", view("tracking.search_logged_models"), methods=["POST"]),
    Route(LOGGED + "/{id}", view("tracking.get_logged_model"), methods=["GET"]),
    Route(LOGGED + "/{id}", view("tracking.finalize_logged_model"), methods=["PATCH"]),
    Route(LOGGED + "/{id}/tags", view("tracking.tag_logged_model"), methods=["PATCH"]),
    Route(LOGGED + "/{id}/params", view("tracking.log_model_params"), methods=["POST"]),
    Route(
        ARTIFACTS + "/credentials-for-write",
        view("artifacts.credentials_for_write"),
        methods=["POST"],
    ),
    Route(
        ARTIFACTS + "/credentials-for-read",
        view("artifacts.credentials_for_read"),
        methods=["POST"],
    ),
    Route(ARTIFACTS + "/list", view("artifacts.list_artifacts"), methods=["GET"]),
    Route(
        ARTIFACTS + "/create-multipart-upload", view("artifacts.create_multipart"), methods=["POST"]
    ),
    Route(
        ARTIFACTS + "/get-presigned-upload-part-url", view("artifacts.part_url"), methods=["GET"]
    ),
    Route(
        ARTIFACTS + "/complete-multipart-upload",
        view("artifacts.complete_multipart"),
        methods=["POST"],
    ),
    Route(
        PREFIX + "/{signature}/{body}", view("files.presigned"), methods=["GET", "PUT", "DELETE"]
    ),
]
