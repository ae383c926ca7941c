"""The compute of a custom model: workload type and size, or a range of concurrency.

Rules: facts/control_plane §2.4, §4. Which pairs a cloud has differs; here all known ones exist.
"""

from servemu.catalog.checks import WORKLOAD_TYPES
from servemu.errors import InvalidParameter
from servemu.schemas.endpoints import ServedEntityInput

SIZES = ("Small", "Medium", "Large")
"""Custom ones exist where a workspace has them (databricks-sdk): ours have none."""
DEFAULT_SIZE = "Small"
DEFAULT_TYPE = "CPU"
CONCURRENCY_STEP = 4


def check_workload(asked: ServedEntityInput) -> None:
    """Raises `InvalidParameter`: the text about type and size is real, the others are a GUESS."""
    kind, size = asked.workload_type or DEFAULT_TYPE, asked.workload_size or DEFAULT_SIZE
    if kind not in WORKLOAD_TYPES or size not in SIZES:
        raise InvalidParameter(
            f"Workload type '{kind}' with size '{size}' is not supported. Please choose a node "
            f"type from {', '.join(WORKLOAD_TYPES)} and a size from {', '.join(SIZES)}."
        )
    _check_concurrency(asked)


def workload_defaults(asked: ServedEntityInput) -> dict[str, object]:
    """`Small` unless concurrency says how big; `CPU` unless throughput chooses the GPU."""
    by_concurrency = (asked.min_provisioned_concurrency, asked.max_provisioned_concurrency)
    size = {} if any(by_concurrency) else {"workload_size": DEFAULT_SIZE}
    return {**size, "workload_type": DEFAULT_TYPE, "scale_to_zero_enabled": False}


def _check_concurrency(asked: ServedEntityInput) -> None:
    least, most = asked.min_provisioned_concurrency, asked.max_provisioned_concurrency
    if least is None and most is None:
        return
    if asked.workload_size is not None:
        raise InvalidParameter(
            "workload_size cannot be specified together with min_provisioned_concurrency and "
            "max_provisioned_concurrency."
        )
    if least is None or most is None:
        raise InvalidParameter(
            "min_provisioned_concurrency and max_provisioned_concurrency must be specified "
            "together."
        )
    for field, value in (("min", least), ("max", most)):
        if value % CONCURRENCY_STEP:
            raise InvalidParameter(
                f"{field}_provisioned_concurrency must be a multiple of {CONCURRENCY_STEP}, "
                f"got {value}."
            )
    if most == 0:
        raise InvalidParameter("max_provisioned_concurrency must be greater than 0, got 0.")
    if least > most:
        raise InvalidParameter(
            f"min_provisioned_concurrency ({least}) must not be greater than "
            f"max_provisioned_concurrency ({most})."
        )
