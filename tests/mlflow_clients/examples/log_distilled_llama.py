"""Log DeepSeek R1 distilled into Llama to Unity Catalog, with the metadata of the page's notebook.

The notebook's metadata as recorded in public (facts/provisioned_throughput §6).
"""

import mlflow
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

mlflow.set_registry_uri("databricks-uc")
CATALOG = "catalog"
SCHEMA = "schema"
MODEL_NAME = "model_name"
registered_model_name = f"{CATALOG}.{SCHEMA}.{MODEL_NAME}"

model = AutoModelForCausalLM.from_pretrained(
    "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", torch_dtype=torch.bfloat16
)
tokenizer = AutoTokenizer.from_pretrained("deepseek-ai/DeepSeek-R1-Distill-Llama-8B")
with mlflow.start_run():
    mlflow.transformers.log_model(
        transformers_model={"model": model, "tokenizer": tokenizer},
        artifact_path="model",
        task="llm/v1/chat",
        registered_model_name=registered_model_name,
        metadata={
            "task": "llm/v1/chat",
            "pretrained_model_name": "meta-llama/Llama-3.1-8B-Instruct",
            "databricks_model_family": "LlamaForCausalLM",
            "databricks_model_size_parameters": "8b",
        },
    )
