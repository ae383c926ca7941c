"""Scripted replies: what is answered instead of what a model would have generated.

A reply takes the engine's place for one request. Everything around it stays as it is: the prompt
is counted by the engine, the tokens are paid from the budget and leave one by one, faults apply.
"""

import re
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from servemu.catalog import CatalogModel
from servemu.errors import InvalidParameter, ResourceNotFound, ScriptedError, ScriptedReplyExists
from servemu.schemas.body import parse
from servemu.schemas.replies import Reply
from servemu_engine.base import (
    Embedder,
    EmbedRequest,
    Engine,
    EngineInfo,
    GenerateRequest,
    Generation,
    PreparedEmbedRequest,
    PreparedRequest,
    ToolCall,
)
from servemu_engine.scripted import Script, scripted
from servemu_state import replies
from servemu_state.database import Database
from servemu_state.errors import ReplyExists
from servemu_state.records import ScriptedReply


@dataclass(frozen=True, slots=True)
class Addressed:
    """Who a request of the data plane is for."""

    workspace: str
    endpoint: str
    model: CatalogModel


@dataclass(slots=True)
class Kept:
    """A reply of one workspace in memory, with its ledger."""

    stored: ScriptedReply
    reply: Reply
    is_configured: bool
    """In the config file: it cannot be removed, and its ledger starts with the process."""

    @property
    def is_over(self) -> bool:
        return self.reply.times is not None and self.stored.used >= self.reply.times


class Replies:
    """Adds, shows, removes and draws replies: those of the workspace first, then the file's.

    What a workspace has is read from the database once, so that a request pays nothing for it.
    """

    def __init__(self, db: Database, configured: Sequence[Reply] = ()) -> None:
        self._db = db
        self._configured = configured
        self._kept: dict[str, list[Kept]] = {}

    def add(self, workspace: str, given: Mapping[str, Any], now: float) -> Kept:
        """Check and store a reply. Raises `InvalidParameter`, `ScriptedReplyExists`."""
        reply = parse(dict(given), Reply)
        reply_id = reply.id or f"reply-{uuid.uuid4().hex[:8]}"
        kept = self._of(workspace)
        if any(other.stored.id == reply_id for other in kept):
            raise ScriptedReplyExists(reply_id)
        stored = ScriptedReply(workspace, reply_id, shown(reply, reply_id), now)
        try:
            with self._db.write() as connection:
                replies.insert(connection, stored)
        except ReplyExists:  # another process on the same database
            raise ScriptedReplyExists(reply_id) from None
        own = [other for other in kept if not other.is_configured]
        kept.insert(len(own), Kept(stored, reply, is_configured=False))
        return kept[len(own)]

    def list_all(self, workspace: str) -> Sequence[Kept]:
        """In the order of matching."""
        return tuple(self._of(workspace))

    def get(self, workspace: str, reply_id: str) -> Kept:
        """Raises `ResourceNotFound`."""
        for kept in self._of(workspace):
            if kept.stored.id == reply_id:
                return kept
        raise ResourceNotFound(f"Scripted reply with id '{reply_id}' does not exist.")

    def remove(self, workspace: str, reply_id: str) -> None:
        """Raises `ResourceNotFound`, `InvalidParameter` (it stands in the config file)."""
        kept = self.get(workspace, reply_id)
        if kept.is_configured:
            raise InvalidParameter(
                f"Scripted reply '{reply_id}' stands in the config file and is not removed here."
            )
        with self._db.write() as connection:
            replies.delete(connection, workspace, reply_id)
        self._of(workspace).remove(kept)

    def clear(self, workspace: str) -> None:
        """All but those of the config file."""
        with self._db.write() as connection:
            replies.delete_all(connection, workspace)
        self.forget(workspace)

    def forget(self, workspace: str) -> None:
        """What the database has was changed by somebody else: it is read again."""
        self._kept.pop(workspace, None)

    def over(self, engine: Engine | Embedder, addressed: Addressed) -> Engine | Embedder:
        """The engine, behind the workspace's replies if there are any."""
        if not self._of(addressed.workspace):
            return engine
        if addressed.model.task == "llm/v1/embeddings":
            return ReplyingEmbedder(engine, self, addressed)  # type: ignore[arg-type]
        return ReplyingEngine(engine, self, addressed)  # type: ignore[arg-type]

    def draw(self, addressed: Addressed, message: str, *, only_errors: bool) -> Kept | None:
        """The first reply that matches, entered into its ledger."""
        for kept in self._of(addressed.workspace):
            if only_errors and kept.reply.error is None:
                continue
            if not kept.is_over and _matches(kept.reply, addressed, message):
                self._use(kept)
                return kept
        return None

    def _use(self, kept: Kept) -> None:
        kept.stored = replace(kept.stored, used=kept.stored.used + 1)
        if not kept.is_configured:
            with self._db.write() as connection:
                replies.save(connection, kept.stored)

    def _of(self, workspace: str) -> list[Kept]:
        kept = self._kept.get(workspace)
        if kept is None:
            with self._db.read() as connection:
                own = replies.list_all(connection, workspace)
            kept = [Kept(one, Reply.model_validate(one.reply), False) for one in own]
            for number, reply in enumerate(self._configured, start=1):
                reply_id = reply.id or f"config-{number}"
                stored = ScriptedReply(workspace, reply_id, shown(reply, reply_id), 0.0)
                kept.append(Kept(stored, reply, is_configured=True))
            self._kept[workspace] = kept
        return kept


class ReplyingEngine:
    """An engine whose answer may be a scripted one."""

    def __init__(self, engine: Engine, replies: Replies, addressed: Addressed) -> None:
        self._engine = engine
        self._replies = replies
        self._addressed = addressed

    @property
    def info(self) -> EngineInfo:
        return self._engine.info

    def start(self) -> None:
        self._engine.start()

    def close(self) -> None:
        self._engine.close()

    def prepare(self, request: GenerateRequest) -> PreparedRequest:
        return self._engine.prepare(request)

    def submit(self, prepared: PreparedRequest) -> Generation:
        """Raises `ScriptedError`, and what the engine raises."""
        message = last_message(prepared.request)
        kept = self._replies.draw(self._addressed, message, only_errors=False)
        if kept is None:
            return self._engine.submit(prepared)
        check_error(kept)
        return scripted(prepared, _script(kept.reply))


class ReplyingEmbedder:
    """An embedder that may fail as scripted; a reply with a text is not for it."""

    def __init__(self, embedder: Embedder, replies: Replies, addressed: Addressed) -> None:
        self._embedder = embedder
        self._replies = replies
        self._addressed = addressed

    @property
    def info(self) -> EngineInfo:
        return self._embedder.info

    def start(self) -> None:
        self._embedder.start()

    def close(self) -> None:
        self._embedder.close()

    def prepare_embed(self, request: EmbedRequest) -> PreparedEmbedRequest:
        return self._embedder.prepare_embed(request)

    async def embed(self, prepared: PreparedEmbedRequest) -> Sequence[Sequence[float]]:
        """Raises `ScriptedError`, and what the embedder raises."""
        for text in prepared.request.texts:
            kept = self._replies.draw(self._addressed, text, only_errors=True)
            if kept is not None:
                check_error(kept)
        return await self._embedder.embed(prepared)


def last_message(request: GenerateRequest) -> str:
    """What replies are matched with: the last user message, or the prompt."""
    asked = (m.content for m in reversed(request.messages) if m.role == "user")
    return next(asked, request.prompt)


def check_error(kept: Kept) -> None:
    """Raises `ScriptedError` when the reply is one."""
    error = kept.reply.error
    if error is not None:
        assert error.error_code is not None
        headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
        headers["X-Emulator-Reply"] = kept.stored.id
        raise ScriptedError(error.status, error.error_code, error.message, headers)


def shown(reply: Reply, reply_id: str) -> dict[str, Any]:
    """As it is stored and answered."""
    fields = reply.model_copy(update={"id": reply_id}).model_dump(mode="json", exclude_none=True)
    return {key: value for key, value in fields.items() if value != []}


def render_reply(kept: Kept) -> dict[str, Any]:
    """The reply with its ledger: used, remaining (null: no limit)."""
    times = kept.reply.times
    return {
        **kept.stored.reply,
        "source": "config" if kept.is_configured else "api",
        "used": kept.stored.used,
        "remaining": None if times is None else times - kept.stored.used,
    }


def _matches(reply: Reply, addressed: Addressed, message: str) -> bool:
    match, model = reply.match, addressed.model
    return (
        fnmatchcase(addressed.endpoint, match.endpoint)
        and (match.model == "*" or _is_called(model, match.model))
        and (match.message is None or match.message in message)
        and (match.pattern is None or re.search(match.pattern, message) is not None)
    )


def _is_called(model: CatalogModel, name: str) -> bool:
    return fnmatchcase(model.full_name, name) or fnmatchcase(model.served_name, name)


def _script(reply: Reply) -> Script:
    calls = tuple(ToolCall(call.id or "", call.name, call.arguments) for call in reply.tool_calls)
    return Script(reply.text or "", calls, reply.finish_reason)
