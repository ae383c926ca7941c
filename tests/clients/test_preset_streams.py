"""Presets that break streams, met by openai (facts: rows C, D); and that each preset is met."""

from collections.abc import Callable
from pathlib import Path

import httpx
import openai
import pytest
from tests.preset_clients import Json, ask

from servemu.faults.presets import presets

BROKEN: dict[str, str | None] = {
    "mid-stream-cut": "RemoteProtocolError",
    "mid-stream-reset": "ReadError",
    "mid-stream-error": "APIError",
    "mid-stream-error-code": None,
    "corrupt-chunk": "JSONDecodeError",
    "truncated-stream": None,
}


@pytest.mark.parametrize("preset", BROKEN)
def test_stream_breaks_after_exactly_five_tokens_which_alone_are_counted(
    workspace: httpx.Client,
    chat: openai.OpenAI,
    llama: str,
    arm: Callable[..., str],
    fired: Callable[[str], int],
    preset: str,
) -> None:
    rule, seen = arm(preset), []
    raised: str | None = None
    try:
        for chunk in ask(chat, stream=True):
            seen.append(chunk)
    except (openai.APIError, httpx.TransportError, ValueError) as error:
        raised = type(error.__cause__ or error).__name__  # newer clients wrap what httpx raised
    assert raised == BROKEN[preset]
    whole = [chunk for chunk in seen if chunk.choices]
    assert [chunk.usage.completion_tokens for chunk in whole] == [1, 2, 3, 4, 5]
    assert all(chunk.choices[0].finish_reason is None for chunk in whole)
    assert len(seen) - len(whole) == (1 if preset == "mid-stream-error-code" else 0)
    assert fired(rule) == 1
    entry = settled(workspace)
    if preset != "corrupt-chunk":  # behind that the stream goes on, if somebody reads it
        assert entry["tokens_out"] == 5
    assert entry["fault"] == rule


def settled(workspace: httpx.Client) -> Json:
    """The journal's entry of the one query, which ends when the emulator sees its client leave."""
    answer = workspace.get("/_emulator/requests", params={"operation": "invocations", "wait": 5})
    entry: Json = answer.json()["requests"][-1]
    return entry


@pytest.mark.parametrize("preset", ["missing-done", "missing-usage", "stalled-stream"])
def test_stream_with_a_harmless_fault_is_read_to_its_end(
    chat: openai.OpenAI,
    llama: str,
    arm: Callable[..., str],
    skip_pauses: Callable[[int], list[int]],
    preset: str,
) -> None:
    arm(preset, **({"effect": {"seconds": 3600}} if preset == "stalled-stream" else {}))
    hours = skip_pauses(3600)
    chunks = list(ask(chat, stream=True))
    assert chunks[-1].choices[0].finish_reason == "length"
    assert all((chunk.usage is None) == (preset == "missing-usage") for chunk in chunks)
    assert hours == ([1] if preset == "stalled-stream" else [])


def test_missing_done_is_the_last_line_that_lacks(
    workspace: httpx.Client, llama: str, arm: Callable[..., str]
) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3, "stream": True}
    path = f"/serving-endpoints/{llama}/invocations"
    whole = workspace.post(path, json=body).text
    arm("missing-done")
    assert "[DONE]" in whole and "[DONE]" not in workspace.post(path, json=body).text


def test_slow_tokens_trickle(
    workspace: httpx.Client,
    llama: str,
    arm: Callable[..., str],
    skip_pauses: Callable[[int], list[int]],
) -> None:
    arm("slow-tokens", effect={"bytes_per_second": 1})
    seconds = skip_pauses(1)
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 3}
    answer = workspace.post(f"/serving-endpoints/{llama}/invocations", json=body)
    assert seconds == [1] * len(answer.content)


def test_every_preset_is_met_by_a_client_here() -> None:
    """Named in a table of these files, or in a test's own words."""
    text = "".join(file.read_text() for file in Path(__file__).parent.glob("test_preset_*.py"))
    assert [name for name in presets() if f'"{name}"' not in text] == []
