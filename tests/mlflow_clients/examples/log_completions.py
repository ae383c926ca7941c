"""Log a completions model to Unity Catalog: the cells of the page on provisioned throughput.

As printed there, but for the comma it lacks after `registered_model_name`.
"""

import mlflow
import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

mlflow.set_registry_uri("databricks-uc")
CATALOG = "catalog"
SCHEMA = "schema"
MODEL_NAME = "model_name"
registered_model_name = f"{CATALOG}.{SCHEMA}.{MODEL_NAME}"

model = AutoModelForCausalLM.from_pretrained(
    "meta-llama/Llama-3.3-70B-Instruct", torch_dtype=torch.bfloat16
)
tokenizer = AutoTokenizer.from_pretrained("meta-llama/Llama-3.3-70B-Instruct")
with mlflow.start_run():
    components = {
        "model": model,
        "tokenizer": tokenizer,
    }
    mlflow.transformers.log_model(
        transformers_model=components,
        artifact_path="model",
        # Specify the llm/v1/xxx task that is compatible with the model being logged
        task="llm/v1/completions",
        # Specify an input example that conforms to the input schema for the task.
        input_example={
            "prompt": np.array(
                [
                    "Below is an instruction that describes a task. Write a response that "
                    "appropriately completes the request.\n\n### Instruction:\n"
                    "What is Apache Spark?\n\n### Response:\n"
                ]
            )
        },
        # By passing the model name, MLflow automatically registers the Transformers model to
        # Unity Catalog with the given catalog/schema/model_name.
        registered_model_name=registered_model_name,
        # Optionally, you can set save_pretrained to False to avoid unnecessary copy of model
        # weight and gain more efficiency.
        save_pretrained=False,
    )
