"""The middleware that injects faults: before the handler, behind it, and into the connection."""

import asyncio
from collections.abc import Callable, Collection
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from servemu.clock import Clock
from servemu.errors import InvalidParameter
from servemu.faults import network
from servemu.faults.answers import answer
from servemu.faults.exposure import Exposure
from servemu.faults.incoming import Incoming
from servemu.faults.ledger import Armed, Faults, Fired
from servemu.faults.rules import Occasion
from servemu.faults.shorthand import HEADER, TAG, header_rule, tag_rule
from servemu.operation import OTHER, endpoint_of, operation_of
from servemu.responses import error_response
from servemu.schemas.effects import ConnectionReset, Delay, Effect, Hang, SlowBytes, Status
from servemu.schemas.faults import parse_rule
from servemu_state.database import Database

CREATES = "serving-endpoints.create"
BY_BODY = {"invocations": "model", CREATES: "name"}
"""The field of the body that names the endpoint, where the path does not."""
PERMISSIONS = "/api/2.0/permissions/serving-endpoints/"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What injection needs of the world."""

    faults: Faults
    db: Database
    clock: Clock
    now: Callable[[str], float]
    """workspace → seconds since the epoch on its clock."""
    states: Callable[[str, str], Collection[str]]
    """(workspace, endpoint) → what its state shows."""
    name_of: Callable[[str, str], str]
    """(workspace, endpoint id) → its name, or nothing."""
    befall: Callable[[str, str, Fired], None]
    """(workspace, endpoint, fault): it happens to what serves."""


class Injection:
    """Asks the rules about each request of the emulated API."""

    def __init__(self, app: ASGIApp, around: Surroundings) -> None:
        self._app = app
        self._around = around

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        operation = operation_of(scope["method"], scope["path"])
        workspace = scope["principal"].workspace
        incoming = Incoming(receive)
        asked = _header(scope)
        try:
            own = await self._own_rules(operation, asked, incoming)
        except InvalidParameter as error:
            await error_response(error, scope["request_id"])(scope, receive, send)
            return
        concerned = own or self._around.faults.concern(workspace, operation)
        if operation == OTHER or not (concerned or asked is not None):
            await self._app(scope, incoming.receive, send)
            return
        occasion = await self._occasion(scope, incoming)
        exposure = Exposure(self._around.faults, self._around.db, occasion, scope, own)
        scope["exposure"] = exposure
        await Exchange(self._app, self._around, scope, incoming, send).run(exposure)

    async def _own_rules(
        self, operation: str, asked: str | None, incoming: Incoming
    ) -> tuple[Armed, ...]:
        """Of the tag that a create brings. Raises `InvalidParameter`, also for a bad header."""
        if asked is not None:
            header_rule(asked)
        if not operation.startswith(CREATES) or TAG.encode() not in await incoming.body():
            return ()
        fields = await incoming.fields()
        tags = fields.get("tags")
        for tag in tags if isinstance(tags, list) else ():
            if isinstance(tag, dict) and tag.get("key") == TAG:
                rule = parse_rule(tag_rule(_text(fields, "name"), str(tag.get("value", ""))))
                return (Armed(rule.id or "", rule, 0.0),)
        return ()

    async def _occasion(self, scope: Scope, incoming: Incoming) -> Occasion:
        method, path = scope["method"], scope["path"]
        operation = operation_of(method, path)
        workspace = scope["principal"].workspace
        endpoint = endpoint_of(method, path)
        stream: bool | None = None
        by_body = BY_BODY.get("invocations" if operation == "invocations" else operation[:24])
        if by_body is not None:
            fields = await incoming.fields()
            endpoint = endpoint or _text(fields, by_body)
            stream = fields.get("stream") is True if operation == "invocations" else None
        elif path.startswith(PERMISSIONS):
            endpoint_id = path.removeprefix(PERMISSIONS).partition("/")[0]
            endpoint = self._around.name_of(workspace, endpoint_id)
        return Occasion(
            workspace=workspace,
            operation=operation,
            endpoint=endpoint,
            phase="request",
            now=self._around.now(workspace),
            request_id=scope["request_id"],
            headers={k.decode("latin-1"): v.decode("latin-1") for k, v in scope["headers"]},
            method=method,
            path=path,
            stream=stream,
            states=self._states(workspace, endpoint),
        )

    def _states(self, workspace: str, endpoint: str) -> Collection[str]:
        """Read only where a rule asks for it."""
        if not self._around.faults.ask_for_state(workspace):
            return ()
        return self._around.states(workspace, endpoint)


class Exchange:
    """One exposed request on its way through the phases."""

    def __init__(
        self, app: ASGIApp, around: Surroundings, scope: Scope, incoming: Incoming, send: Send
    ) -> None:
        self._app = app
        self._around = around
        self._scope = scope
        self._incoming = incoming
        self._send_out = send
        self._is_lost = False

    async def run(self, exposure: Exposure) -> None:
        self._exposure = exposure
        occasion = exposure.occasion
        for fired in exposure.draw("lifecycle", of_serving=True):
            self._around.befall(occasion.workspace, occasion.endpoint, fired)
        fired_first = exposure.draw("request")
        if fired_first:
            await self._incoming.body()
        effect = await self._delayed(fired_first)
        wire = next((fired.rule.effect for fired in exposure.draw("network")), None)
        if isinstance(wire, SlowBytes) or (isinstance(wire, ConnectionReset) and wire.after_bytes):
            trickle = network.Trickle(self._scope, self._send_out, wire, self._around.clock)
            self._send_out = trickle.send
        elif isinstance(wire, ConnectionReset | Hang):
            await network.act(wire, self._scope, self._incoming.receive)
            return
        if effect is not None:
            await self._instead(effect)
        else:
            await self._app(self._scope, self._incoming.receive, self._watch)

    async def _watch(self, message: Message) -> None:
        """From the app: what it has done is done, but the answer may be lost."""
        if self._is_lost:
            return
        if message["type"] == "http.response.start" and message["status"] < 400:
            effect = await self._delayed(self._exposure.draw("after_commit"))
            if effect is not None:
                self._is_lost = True
                await self._instead(effect)
                return
        await self._send(message)

    async def _instead(self, effect: Effect) -> None:
        if isinstance(effect, ConnectionReset | Hang):
            await network.act(effect, self._scope, self._incoming.receive)
            return
        assert isinstance(effect, Status)
        await self._wait(effect.delay)
        control_plane = self._exposure.occasion.operation != "invocations"
        response = answer(effect, self._scope["request_id"], control_plane=control_plane)
        await response(self._scope, self._incoming.receive, self._send)

    async def _delayed(self, fired: list[Fired]) -> Effect | None:
        """The delays of all are over. Answers the other effect."""
        effects = [one.rule.effect for one in fired]
        await self._wait(sum(effect.seconds for effect in effects if isinstance(effect, Delay)))
        return next((effect for effect in effects if not isinstance(effect, Delay)), None)

    async def _wait(self, seconds: float) -> None:
        """Raises `ClientDisconnect` when nobody waits any more."""
        if seconds <= 0:
            return
        clock = self._around.clock
        late = asyncio.ensure_future(clock.sleep_until(clock.monotonic() + seconds))
        left = asyncio.ensure_future(self._incoming.gone())
        try:
            await asyncio.wait((late, left), return_when=asyncio.FIRST_COMPLETED)
            if not late.done():
                raise ClientDisconnect
        finally:
            late.cancel()
            left.cancel()

    async def _send(self, message: Message) -> None:
        """Every injected answer names its rules."""
        if message["type"] == "http.response.start" and self._exposure.ids:
            ids = ", ".join(dict.fromkeys(self._exposure.ids))
            named = (HEADER.encode(), ids.encode("latin-1"))
            message = {**message, "headers": [*message["headers"], named]}
        await self._send_out(message)


def _header(scope: Scope) -> str | None:
    name = HEADER.encode()
    values = (value.decode("latin-1") for key, value in scope["headers"] if key == name)
    return next(values, None)


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    return value if isinstance(value, str) else ""
