"""`servemu reply`: add, list, remove."""

from typing import Annotated, Any

import typer

from servemu.cli.connection import (
    DEFAULT_URL,
    AsJson,
    Connection,
    Token,
    Url,
    show_json,
    show_table,
)

app = typer.Typer(help="Answers that you write yourself.", no_args_is_help=True)

REPLIES = "/_emulator/replies"
_SHOWN = 60


@app.command()
def add(
    text: Annotated[str | None, typer.Option(help="What is answered.")] = None,
    tool: Annotated[str | None, typer.Option(help="Name of a function that is called.")] = None,
    arguments: Annotated[str, typer.Option(help="JSON, with --tool.")] = "{}",
    status: Annotated[int | None, typer.Option(help="Fail with this status instead.")] = None,
    error_code: Annotated[str | None, typer.Option(help="With --status.")] = None,
    error_message: Annotated[str, typer.Option(help="With --status.")] = "",
    endpoint: Annotated[str, typer.Option(help="A glob on the endpoint's name.")] = "*",
    model: Annotated[str, typer.Option(help="A glob on the served model.")] = "*",
    message: Annotated[str | None, typer.Option(help="Part of the last user message.")] = None,
    pattern: Annotated[str | None, typer.Option(help="Or a regular expression.")] = None,
    times: Annotated[int | None, typer.Option(help="How often; default: always.")] = None,
    finish_reason: Annotated[str | None, typer.Option(help="stop, length or tool_calls.")] = None,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Add a reply; prints its id. The first reply that matches a request is given."""
    match = {"endpoint": endpoint, "model": model, "message": message, "pattern": pattern}
    error = {"status": status, "error_code": error_code, "message": error_message}
    reply: dict[str, Any] = {
        "match": _given(match),
        "text": text,
        "tool_calls": None if tool is None else [{"name": tool, "arguments": arguments}],
        "error": None if status is None else _given(error),
        "times": times,
        "finish_reason": finish_reason,
    }
    typer.echo(Connection(url, token).post(REPLIES, _given(reply))["id"])


@app.command("list")
def list_all(url: Url = DEFAULT_URL, token: Token = None, as_json: AsJson = False) -> None:
    """The replies in the order of matching, and how often each was given."""
    answer = Connection(url, token).get(REPLIES)
    if as_json:
        show_json(answer)
        return
    rows = [
        (
            reply["id"],
            reply["match"]["endpoint"],
            reply["match"].get("message", reply["match"].get("pattern", "any")),
            _answer(reply),
            str(reply["used"]),
            "no limit" if reply["remaining"] is None else str(reply["remaining"]),
        )
        for reply in answer["replies"]
    ]
    show_table(("id", "endpoint", "message", "answer", "used", "remaining"), rows)


@app.command()
def remove(
    reply_id: Annotated[str | None, typer.Argument(help="None with --all.")] = None,
    every: Annotated[bool, typer.Option("--all", help="All replies of the workspace.")] = False,
    url: Url = DEFAULT_URL,
    token: Token = None,
) -> None:
    """Remove a reply, or all of them but those of the config file."""
    if every == (reply_id is not None):
        raise typer.BadParameter("give either the id of a reply or --all")
    Connection(url, token).delete(REPLIES if reply_id is None else f"{REPLIES}/{reply_id}")


def _given(fields: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in fields.items() if value is not None}


def _answer(reply: dict[str, Any]) -> str:
    if "error" in reply:
        return f"{reply['error']['status']} {reply['error']['error_code']}"
    calls = "".join(f" {call['name']}()" for call in reply.get("tool_calls", ()))
    text: str = reply.get("text", "")
    return f"{text[:_SHOWN]}{calls}".strip()
