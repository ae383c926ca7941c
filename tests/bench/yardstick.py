"""moto's SageMaker endpoints under the same load: what a widely used emulator takes for the same.

(facts/peers §6)
"""

from collections.abc import Iterator
from dataclasses import replace

from tests.bench.load import Load, measure
from tests.bench.operations import Case, measured
from tests.bench.processes import Running, bench_module, running

CREDENTIAL = "Credential=bench/20260101/us-east-1/sagemaker/aws4_request"
MODEL = '{"ModelName": "m", "ExecutionRoleArn": "arn:aws:iam::123456789012:role/r"}'
CONFIG = (
    '{"EndpointConfigName": "c", "ProductionVariants": [{"VariantName": "v", "ModelName": "m",'
    ' "InitialInstanceCount": 1, "InstanceType": "ml.m5.large"}]}'
)
CREATE = '{"EndpointName": "bench-{n}", "EndpointConfigName": "c"}'

NOTES = (
    "moto: its threaded server ends the connection after each answer, so every request of it "
    "includes a new connection; the others keep theirs.",
    "moto list: the first page, 100 endpoints, which is all that one request answers.",
)


def cases(size: int) -> Iterator[Case]:
    """Create, describe and list, with `size` endpoints to begin with."""
    with running(bench_module("moto_server")) as server:
        for operation, body in (("CreateModel", MODEL), ("CreateEndpointConfig", CONFIG)):
            measure(replace(_load(server, operation, body), connections=1, requests=1))
        create = _load(server, "CreateEndpoint", CREATE)
        created = measure(replace(create, requests=size)).next
        describe = _load(server, "DescribeEndpoint", '{"EndpointName": "bench-0"}')
        yield measured("moto: DescribeEndpoint", size, describe)
        yield measured("moto: ListEndpoints", size, _load(server, "ListEndpoints", "{}"))
        yield measured("moto: CreateEndpoint", size, replace(create, first=created))


def _load(server: Running, operation: str, body: str) -> Load:
    return Load(
        port=server.port,
        method="POST",
        path="/",
        body=body,
        headers={
            "authorization": f"AWS4-HMAC-SHA256 {CREDENTIAL}, SignedHeaders=host, Signature=0",
            "content-type": "application/x-amz-json-1.1",
            "x-amz-target": f"SageMaker.{operation}",
        },
    )
