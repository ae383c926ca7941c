"""Serve a registered model with provisioned throughput through the MLflow Deployments SDK."""

import requests
from mlflow.deployments import get_deploy_client
from mlflow.utils.databricks_utils import get_databricks_host_creds

endpoint_name = "prov-throughput-endpoint"
model_name = "ml.llm-catalog.foundation-model"
model_version = 3

workspace = get_databricks_host_creds()
chunk_size = requests.get(
    f"{workspace.host}/api/2.0/serving-endpoints/get-model-optimization-info/{model_name}/{model_version}",
    headers={"Authorization": f"Bearer {workspace.token}"},
).json()["throughput_chunk_size"]

client = get_deploy_client("databricks")
client.create_endpoint(
    config={
        "name": endpoint_name,
        "config": {
            "served_entities": [
                {
                    "entity_name": model_name,
                    "entity_version": model_version,
                    "min_provisioned_throughput": 2 * chunk_size,
                    "max_provisioned_throughput": 3 * chunk_size,
                }
            ]
        },
    }
)
