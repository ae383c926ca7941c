"""The routes of the registry, of its uploads and of the Files API."""

from starlette.routing import Route

from servemu.registry.signing import PREFIX
from servemu.routes import artifacts, files, marketplace, registry, tracking, unity_catalog

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
    Route(MODELS + "/create", registry.create_model, methods=["POST"]),
    Route(MODELS + "/get", registry.get_model, methods=["GET"]),
    Route(MODELS + "/search", registry.search_models, methods=["GET"]),
    Route(MODELS + "/update", registry.update_model, methods=["PATCH"]),
    Route(MODELS + "/delete", registry.delete_model, methods=["DELETE"]),
    Route(MODELS + "/set-tag", registry.set_model_tag, methods=["POST"]),
    Route(MODELS + "/delete-tag", registry.delete_model_tag, methods=["DELETE"]),
    Route(MODELS + "/alias", registry.set_alias, methods=["POST"]),
    Route(MODELS + "/alias", registry.get_alias, methods=["GET"]),
    Route(MODELS + "/alias", registry.delete_alias, methods=["DELETE"]),
    Route(
        MODELS + ":is-databricks-sdk-models-artifact-repository-enabled",
        files.uses_files_api,
        methods=["GET"],
    ),
    Route(VERSIONS + "/create", registry.create_version, methods=["POST"]),
    Route(VERSIONS + "/finalize", registry.finalize_version, methods=["POST"]),
    Route(VERSIONS + "/get", registry.get_version, methods=["GET"]),
    Route(VERSIONS + "/search", registry.search_versions, methods=["GET"]),
    Route(VERSIONS + "/update", registry.update_version, methods=["PATCH"]),
    Route(VERSIONS + "/delete", registry.delete_version, methods=["DELETE"]),
    Route(VERSIONS + "/set-tag", registry.set_version_tag, methods=["POST"]),
    Route(VERSIONS + "/delete-tag", registry.delete_version_tag, methods=["DELETE"]),
    Route(VERSIONS + "/get-download-uri", registry.download_uri, methods=["GET"]),
    Route(VERSIONS + "/emit-lineage", registry.emit_lineage, methods=["POST"]),
    Route(VERSIONS + "/generate-temporary-credentials", files.credentials, methods=["POST"]),
    Route(CATALOG, unity_catalog.list_models, methods=["GET"]),
    Route(CATALOG, unity_catalog.create_model, methods=["POST"]),
    Route(CATALOG + "/{full_name}", unity_catalog.get_model, methods=["GET"]),
    Route(CATALOG + "/{full_name}", unity_catalog.update_model, methods=["PATCH"]),
    Route(CATALOG + "/{full_name}", unity_catalog.delete_model, methods=["DELETE"]),
    Route(CATALOG + "/{full_name}/aliases/{alias}", unity_catalog.get_by_alias, methods=["GET"]),
    Route(CATALOG + "/{full_name}/aliases/{alias}", unity_catalog.set_alias, methods=["PUT"]),
    Route(CATALOG + "/{full_name}/aliases/{alias}", unity_catalog.delete_alias, methods=["DELETE"]),
    Route(CATALOG + "/{full_name}/versions", unity_catalog.list_versions, methods=["GET"]),
    Route(CATALOG + "/{full_name}/versions/{version}", unity_catalog.get_version, methods=["GET"]),
    Route(
        CATALOG + "/{full_name}/versions/{version}", unity_catalog.update_version, methods=["PATCH"]
    ),
    Route(
        CATALOG + "/{full_name}/versions/{version}",
        unity_catalog.delete_version,
        methods=["DELETE"],
    ),
    Route(FILES + "/files/{path:path}", files.get_file, methods=["GET"]),
    Route(FILES + "/files/{path:path}", files.put_file, methods=["PUT"]),
    Route(FILES + "/files/{path:path}", files.post_file, methods=["POST"]),
    Route(FILES + "/files/{path:path}", files.delete_file, methods=["DELETE"]),
    Route(FILES + "/directories/{path:path}", files.head_folder, methods=["HEAD"]),
    Route(FILES + "/directories/{path:path}", files.get_folder, methods=["GET"]),
    Route(FILES + "/directories/{path:path}", files.put_folder, methods=["PUT"]),
    Route(FILES + "/create-upload-part-urls", files.part_urls, methods=["POST"]),
    Route(FILES + "/create-abort-upload-url", files.abort_url, methods=["POST"]),
    Route(FILES + "/create-upload-url", files.upload_url, methods=["POST"]),
    Route(FILES + "/create-download-url", files.download_url, methods=["POST"]),
    Route("/_emulator/listings", marketplace.list_listings, methods=["GET"]),
    Route("/_emulator/listings/{listing}/install", marketplace.install_listing, methods=["POST"]),
    Route(TRACKING + "/experiments/create", tracking.create_experiment, methods=["POST"]),
    Route(TRACKING + "/experiments/get", tracking.get_experiment, methods=["GET"]),
    Route(TRACKING + "/experiments/get-by-name", tracking.get_experiment, methods=["GET"]),
    Route(RUNS + "/create", tracking.create_run, methods=["POST"]),
    Route(RUNS + "/get", tracking.get_run, methods=["GET"]),
    Route(RUNS + "/search", tracking.search_runs, methods=["POST"]),
    Route(RUNS + "/update", tracking.update_run, methods=["POST"]),
    Route(RUNS + "/log-parameter", tracking.log_parameter, methods=["POST"]),
    Route(RUNS + "/log-metric", tracking.log_metric, methods=["POST"]),
    Route(RUNS + "/log-batch", tracking.log_batch, methods=["POST"]),
    Route(RUNS + "/set-tag", tracking.set_tag, methods=["POST"]),
    Route(RUNS + "/outputs", tracking.log_outputs, methods=["POST"]),
    Route(RUNS + "/log-model", tracking.accept, methods=["POST"]),
    Route(RUNS + "/log-inputs", tracking.accept, methods=["POST"]),
    Route(LOGGED, tracking.create_logged_model, methods=["POST"]),
    Route(LOGGED + "/search", tracking.search_logged_models, methods=["POST"]),
    Route(LOGGED + "/{id}", tracking.get_logged_model, methods=["GET"]),
    Route(LOGGED + "/{id}", tracking.finalize_logged_model, methods=["PATCH"]),
    Route(LOGGED + "/{id}/tags", tracking.tag_logged_model, methods=["PATCH"]),
    Route(LOGGED + "/{id}/params", tracking.log_model_params, methods=["POST"]),
    Route(ARTIFACTS + "/credentials-for-write", artifacts.credentials_for_write, methods=["POST"]),
    Route(ARTIFACTS + "/credentials-for-read", artifacts.credentials_for_read, methods=["POST"]),
    Route(ARTIFACTS + "/list", artifacts.list_artifacts, methods=["GET"]),
    Route(ARTIFACTS + "/create-multipart-upload", artifacts.create_multipart, methods=["POST"]),
    Route(ARTIFACTS + "/get-presigned-upload-part-url", artifacts.part_url, methods=["GET"]),
    Route(ARTIFACTS + "/complete-multipart-upload", artifacts.complete_multipart, methods=["POST"]),
    Route(PREFIX + "/{signature}/{body}", files.presigned, methods=["GET", "PUT", "DELETE"]),
]
