"""What provisioned throughput adds to the endpoint routes: the model optimization info."""

from starlette.requests import Request
from starlette.responses import Response

from servemu.catalog import optimization_info
from servemu.lifecycle.configs import find_model
from servemu.responses import json_response
from servemu.world import world_of


async def get_model_optimization_info(request: Request) -> Response:
    """Is it eligible, and in which steps is it sized (facts/provisioned_throughput §1)."""
    name, version = request.path_params["model"], request.path_params["version"]
    model = find_model(world_of(request).catalog, name, version)
    why = {} if model.refusal is None else {"X-Emulator-Why": model.refusal}
    return json_response(optimization_info(model), headers=why)
