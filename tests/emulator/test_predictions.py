"""What the config file adds: custom models with a signature, APIs of a model, gateway paths."""

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from servemu.catalog import CatalogInvalid, load_catalog
from servemu.clock import PausedClock
from servemu.settings import Settings
from servemu.testing import Emulator, serve

Json = dict[str, Any]
Connect = Callable[..., httpx.Client]

B = "/api/2.0/serving-endpoints"
PATH = "/serving-endpoints/{}/invocations"
IRIS = "ml.flowers.iris"
NAMED = "ml.flowers.named"
BARE = "ml.flowers.bare"
HI = [{"role": "user", "content": "hi"}]

MODELS: Json = {
    IRIS: {
        "family": "custom",
        "signature": {
            "inputs": [
                {"name": "length", "type": "double"},
                {"name": "count", "type": "long"},
                {"name": "note", "type": "string", "required": False},
            ],
            "outputs": [{"type": "long"}],
            "params": [{"name": "threshold", "type": "double", "default": 0.5}],
        },
    },
    NAMED: {
        "family": "custom",
        "signature": {
            "inputs": [{"name": "text", "type": "string"}],
            "outputs": [
                {"name": "label", "type": "string"},
                {"name": "score", "type": "double"},
                {"name": "is_sure", "type": "boolean"},
                {"name": "at", "type": "datetime"},
                {"name": "raw", "type": "binary"},
            ],
        },
    },
    BARE: {"family": "custom"},
    "ml.chat.mine": {
        "family": "llama-8b",
        "api_types": ["openai/v1/responses", "anthropic/v1/messages"],
    },
}


@pytest.fixture(scope="module")
def laboratory() -> Iterator[Emulator]:
    """An emulator with three custom models, and the AI Gateway's paths on."""
    settings = Settings(engine="synthetic", catalog={"models": MODELS}, ai_gateway=True)
    with serve(settings, clock=PausedClock()) as running:
        yield running


@pytest.fixture(scope="module")
def lab(laboratory: Emulator, connect: Connect) -> Iterator[httpx.Client]:
    """A workspace where an endpoint of each is up."""
    with connect(laboratory.url) as client:
        for name in MODELS:
            entity = {"entity_name": name, "entity_version": "1"}
            body = {"name": name.rpartition(".")[2], "config": {"served_entities": [entity]}}
            client.post(B, json=body).raise_for_status()
        client.post("/_emulator/clock/advance", json={"seconds": 600}).raise_for_status()
        yield client


ROWS = [{"length": 1.5, "count": 2}, {"length": 3.0, "count": 4}]
FORMS: dict[str, Json] = {
    "split": {"dataframe_split": {"columns": ["length", "count"], "data": [[1.5, 2], [3, 4]]}},
    "split with index": {
        "dataframe_split": {
            "index": [7, 8],
            "columns": ["length", "count", "extra"],
            "data": [[1.5, 2, "x"], [3, 4, None]],
        }
    },
    "records": {"dataframe_records": ROWS},
    "texts that are numbers": {
        "dataframe_records": [
            {"length": "1.5", "count": "2"},
            {"length": "3", "count": "4"},
        ]
    },
    "instances": {"instances": ROWS},
    "inputs by column": {"inputs": {"length": [1.5, 3.0], "count": [2, 4]}},
    "inputs by row": {"inputs": ROWS},
    "default parameter": {"inputs": ROWS, "params": {"threshold": 0.5, "unknown": 1}},
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_the_same_rows_gives_the_same_predictions(
    lab: httpx.Client, form: str
) -> None:
    answer = lab.post(PATH.format("iris"), json=FORMS[form])
    assert answer.status_code == 200, answer.text
    expected = lab.post(PATH.format("iris"), json=FORMS["records"]).json()
    assert answer.json() == expected
    assert list(expected) == ["predictions"]
    assert [type(one) for one in expected["predictions"]] == [int, int]
    assert answer.headers["served-model-name"] == "iris-1"


def test_a_prediction_follows_from_its_row_alone(lab: httpx.Client) -> None:
    whole = lab.post(PATH.format("iris"), json={"dataframe_records": ROWS}).json()["predictions"]
    for row, prediction in zip(ROWS, whole, strict=True):
        alone = lab.post(PATH.format("iris"), json={"dataframe_records": [row]}).json()
        assert alone == {"predictions": [prediction]}


def test_a_prediction_follows_from_the_parameters_too(lab: httpx.Client) -> None:
    many = [{"length": n, "count": n} for n in range(20)]
    answers = [
        lab.post(PATH.format("iris"), json={"inputs": many, "params": {"threshold": t}}).json()
        for t in (0.1, 0.9)
    ]
    assert answers[0] != answers[1]


def test_named_outputs_make_an_object_of_the_declared_types(lab: httpx.Client) -> None:
    [prediction] = lab.post(PATH.format("named"), json={"inputs": ["a"]}).json()["predictions"]
    assert {name: type(value) for name, value in prediction.items()} == {
        "label": str,
        "score": float,
        "is_sure": bool,
        "at": str,
        "raw": str,
    }
    assert 0 <= prediction["score"] <= 1


@pytest.mark.parametrize(
    ("value", "count"),
    [([[1, 2], [3, 4]], 2), ([1, 2, 3], 3), ({"a": [1, 2]}, 2), ({"a": 1}, 1), (5, 1), ([], 0)],
    ids=str,
)
def test_model_without_a_signature_takes_anything(
    lab: httpx.Client, value: object, count: int
) -> None:
    predictions = lab.post(PATH.format("bare"), json={"inputs": value}).json()["predictions"]
    assert [type(one) for one in predictions] == [float] * count


def test_scripted_reply_is_the_prediction(lab: httpx.Client) -> None:
    reply = {"match": {"endpoint": "iris", "message": "777"}, "text": "[3]"}
    lab.post("/_emulator/replies", json=reply).raise_for_status()
    row = {"length": 1.0, "count": 777}
    answer = lab.post(PATH.format("iris"), json={"dataframe_records": [row]})
    assert answer.json() == {"predictions": [3]}


def test_custom_endpoint_shows_no_task_and_is_journaled(lab: httpx.Client) -> None:
    lab.post(PATH.format("bare"), json={"inputs": [1]})
    assert "task" not in lab.get(f"{B}/bare").json()
    query = "/_emulator/requests?operation=invocations&endpoint=bare"
    entry = lab.get(query).json()["requests"][-1]
    assert (entry["status"], entry["tokens_in"], entry["tokens_out"]) == (200, 0, 0)
    document = lab.get(f"{B}/bare/openapi").json()
    assert "PredictionsAnswer" in document["components"]["schemas"]


FORMAT = (
    "The input must be a JSON dictionary with exactly one of the input fields "
    "{'dataframe_records', 'dataframe_split', 'inputs', 'instances'}."
)
NO_SPLIT = (
    "Invalid input. Provided dataframe_split field is not a valid dataframe representation in "
    "'split' format. Error: "
)
BAD: list[tuple[object, str]] = [
    ({}, f"{FORMAT} Received dictionary with input fields: []."),
    ({"messages": []}, f"{FORMAT} Received dictionary with input fields: []."),
    (
        {"inputs": [1], "instances": [1]},
        f"{FORMAT} Received dictionary with input fields: ['inputs', 'instances'].",
    ),
    ([1], f"Invalid input. {FORMAT} Received a list."),
    (1, f"Invalid input. {FORMAT} Received unexpected input type '<class 'int'>'."),
    (
        {"dataframe_split": [{"data": []}]},
        "Invalid input. Dataframe split format must be a dictionary. Got list.",
    ),
    (
        {"dataframe_split": {"columns": ["a"]}},
        "Invalid input. Dataframe split format must have 'data' field and optionally 'columns' and "
        "'index' fields. Got {'columns'}.'",
    ),
    (
        {"dataframe_split": {"columns": ["a"], "data": [[1, 2]]}},
        f"{NO_SPLIT}'1 columns passed, passed data had 2 columns'",
    ),
    (
        {"dataframe_records": {"length": 1}},
        "Invalid input. Dataframe records format must be a list of records. Got dictionary.",
    ),
    (
        {"inputs": {"length": [1], "count": [1, 2]}},
        "Invalid input. The length of values for each input/column name are not the same",
    ),
    (
        {"dataframe_records": [{"length": 1, "weight": 2}]},
        'Failed to enforce schema of data \'[{"length": 1, "weight": 2}]\' with schema '
        "'['length': double, 'count': long, 'note': string]'. Error: Model is missing inputs "
        "['count']. Note that there were extra inputs: ['weight'].",
    ),
    (
        {"dataframe_records": [{"length": "long", "count": 1}]},
        "Invalid input. Data is not compatible with model signature. Failed to convert column "
        "length to type 'float64'. Error: 'ValueError(\"could not convert string to float: "
        "'long'\")'",
    ),
    (
        {"dataframe_records": [{"length": 1, "count": [2]}]},
        "Invalid input. Data is not compatible with model signature. Failed to convert column "
        "count to type 'int64'. Error: ",
    ),
    (
        {"inputs": ROWS, "params": {"threshold": "high"}},
        "Can not safely convert `<class 'str'>` to `DataType.double` for value `high`",
    ),
]


@pytest.mark.parametrize(("body", "message"), BAD, ids=[str(body)[:50] for body, _ in BAD])
def test_bad_input_is_a_400_in_the_words_of_mlflow(
    lab: httpx.Client, body: object, message: str
) -> None:
    answer = lab.post(PATH.format("iris"), json=body)
    told = answer.json()
    assert (answer.status_code, told["error_code"]) == (400, "BAD_REQUEST")
    assert told["message"].startswith(message)


def test_body_that_is_no_json_is_a_400_of_mlflow(lab: httpx.Client) -> None:
    answer = lab.post(PATH.format("iris"), content=b"{")
    assert (answer.status_code, answer.json()["error_code"]) == (400, "BAD_REQUEST")
    message = "Invalid input. Ensure that input is a valid JSON formatted string. Error: "
    assert answer.json()["message"].startswith(message)


def test_custom_model_is_not_on_the_openai_paths(lab: httpx.Client) -> None:
    body = {"model": "iris", "messages": [{"role": "user", "content": "hi"}]}
    answer = lab.post("/serving-endpoints/chat/completions", json=body)
    message = 'Bad request: endpoint "iris" serves a custom model: query /invocations\n'
    assert (answer.status_code, answer.json()["message"]) == (400, message)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"family": "custom", "signature": {"input": []}}, "signature = {'input': []}"),
        ({"family": "custom", "signature": {"inputs": []}}, "signature.inputs = []"),
        (
            {"family": "custom", "signature": {"inputs": [{"type": "int"}]}},
            "signature.inputs.type = 'int' is not allowed; allowed: boolean | integer | long",
        ),
        (
            {"family": "custom", "signature": {"outputs": [{"type": "long"}, {"type": "long"}]}},
            "names for all, where there is more than one",
        ),
        ({"family": "llama-8b", "signature": {}}, "nothing: the task is llm/v1/chat"),
    ],
    ids=str,
)
def test_bad_signature_is_refused_at_the_start(row: Json, says: str) -> None:
    with pytest.raises(CatalogInvalid) as refused:
        load_catalog({"models": {"a.b.c": row}})
    assert says in str(refused.value)


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        ("responses", {"input": "hi"}),
        ("anthropic/v1/messages", {"messages": HI, "max_tokens": 9}),
    ],
)
def test_model_of_ones_own_speaks_the_apis_that_it_says(
    lab: httpx.Client, path: str, fields: Json
) -> None:
    answer = lab.post(f"/serving-endpoints/{path}", json={"model": "mine", **fields})
    assert (answer.status_code, answer.json()["model"]) == (200, "mine")


GATEWAY = "/ai-gateway/mlflow/v1"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (
            "chat/completions",
            {"model": "databricks-meta-llama-3-3-70b-instruct", "messages": HI},
        ),
        ("chat/completions", {"model": "system.ai.claude-haiku-4-5", "messages": HI}),
        ("chat/completions", {"model": "system.ai.gpt-oss-20b", "messages": HI}),
        ("embeddings", {"model": "databricks-gte-large-en", "input": "hi"}),
        ("embeddings", {"model": "system.ai.gte_large_en_v1_5", "input": "hi"}),
        ("responses", {"model": "databricks-gpt-5", "input": "hi"}),
    ],
)
def test_gateway_answers_where_it_is_on(lab: httpx.Client, path: str, body: Json) -> None:
    answer = lab.post(f"{GATEWAY}/{path}", json=body)
    assert answer.status_code == 200, answer.text
    entry = lab.get("/_emulator/requests?operation=invocations").json()["requests"][-1]
    assert entry["path"] == f"{GATEWAY}/{path}"
    assert entry["endpoint"].startswith("databricks-")
    assert entry["tokens_in"] > 0


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"store": True}, 'json: unknown field "store"'),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "strict": True}}]},
            'json: unknown field "strict"',
        ),
        ({"model": ""}, "model must be the name of a serving endpoint"),
    ],
)
def test_gateway_is_stricter(lab: httpx.Client, fields: Json, message: str) -> None:
    body = {"model": "databricks-meta-llama-3-3-70b-instruct", "messages": HI, **fields}
    answer = lab.post(f"{GATEWAY}/chat/completions", json=body)
    assert answer.status_code == 400
    assert answer.json()["message"] == f"Bad request: {message}\n"


@pytest.mark.parametrize("path", ["chat/completions", "embeddings", "responses"])
def test_gateway_is_absent_by_default(workspace: httpx.Client, path: str) -> None:
    answer = workspace.post(f"{GATEWAY}/{path}", json={"model": "m"})
    assert (answer.status_code, answer.json()) == (
        404,
        {
            "error_code": "ENDPOINT_NOT_FOUND",
            "message": f"No API found for 'POST {GATEWAY}/{path}'",
        },
    )
    assert "ai_gateway = true" in answer.headers["x-emulator-why"]
