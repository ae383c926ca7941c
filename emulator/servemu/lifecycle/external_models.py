"""External models: what a provider must be given, what is shown of it (facts/control_plane §2.5).

There is no upstream here, so that a secret in plain text is checked for and then dropped: it is
neither stored nor logged. All texts are a GUESS.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from servemu.errors import InvalidParameter
from servemu.schemas.external_models import CONFIG_OF, PLAINTEXT, ExternalModel, ProviderConfig

REFERENCE = "{{{{secrets/serving-endpoint-secrets/{endpoint}-{entity}-{field}}}}}"
"""What is shown where a secret came in plain text. The real text is not known: GUESS."""


def default_name(model: ExternalModel) -> str:
    """The served entity's, when none was given (facts/control_plane §2.4)."""
    return model.name.replace(".", "-").replace(":", "-")


def check_external_model(model: ExternalModel) -> None:
    """Raises `InvalidParameter`, without a secret in it."""
    wanted = CONFIG_OF[model.provider]
    for key in CONFIG_OF.values():
        if key != wanted and getattr(model, key) is not None:
            raise InvalidParameter(
                f"{key} cannot be specified for the external model provider '{model.provider}'."
            )
    config: ProviderConfig | None = getattr(model, wanted)
    if config is None:
        raise InvalidParameter(f"Missing required field: external_model.{wanted}")
    methods = [name for name, _ in _nested(config)]
    if len(methods) > 1:
        raise InvalidParameter(
            f"Only one authentication method can be specified in {wanted}, got {methods}."
        )
    _check_fields(f"external_model.{wanted}", config)


def shown_external_model(model: ExternalModel, endpoint: str, entity: str) -> dict[str, Any]:
    """The model as answers have it: a reference stands where a secret came in plain text."""

    def shown(value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        answer: dict[str, Any] = {}
        for key, inner in value.items():
            field = key.removesuffix(PLAINTEXT)
            answer[field] = (
                REFERENCE.format(endpoint=endpoint, entity=entity, field=field)
                if key.endswith(PLAINTEXT)
                else shown(inner)
            )
        return answer

    body: dict[str, Any] = shown(model.shown())
    return body


def _check_fields(path: str, config: ProviderConfig) -> None:
    secrets = [
        name.removesuffix(PLAINTEXT)
        for name in type(config).model_fields
        if name.endswith(PLAINTEXT)
    ]
    for name in secrets:
        if getattr(config, name) is not None and getattr(config, name + PLAINTEXT) is not None:
            raise InvalidParameter(
                f"Only one of {path}.{name} and {path}.{name}{PLAINTEXT} can be specified."
            )
    for name in config.needed():
        if getattr(config, name) or (name in secrets and getattr(config, name + PLAINTEXT)):
            continue
        twin = f" or {path}.{name}{PLAINTEXT}" if name in secrets else ""
        raise InvalidParameter(f"Missing required field: {path}.{name}{twin}")
    for name, inner in _nested(config):
        _check_fields(f"{path}.{name}", inner)


def _nested(config: ProviderConfig) -> Iterator[tuple[str, ProviderConfig]]:
    for name in type(config).model_fields:
        inner = getattr(config, name)
        if isinstance(inner, ProviderConfig):
            yield name, inner
