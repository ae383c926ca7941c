"""Faults of one served entity: asked behind the traffic split, when it is known who answers."""

from starlette.requests import Request

from servemu.faults.answers import InjectedError
from servemu.faults.exposure import Exposure
from servemu.schemas.effects import Delay, Status
from servemu.serving import world_of


async def befall_entity(request: Request, entity: str) -> None:
    """Raises `InjectedError` when a rule about this entity hits, in time a fallback can act on."""
    exposure: Exposure | None = request.scope.get("exposure")
    if exposure is None:
        return
    effects = [fired.rule.effect for fired in exposure.draw("request", entity=entity)]
    errors = [effect for effect in effects if isinstance(effect, Status)]
    seconds = sum(effect.seconds for effect in effects if isinstance(effect, Delay))
    seconds += errors[0].delay if errors else 0
    if seconds:
        clock = world_of(request).clock
        await clock.sleep_until(clock.monotonic() + seconds)
    if errors:
        raise InjectedError(errors[0])
