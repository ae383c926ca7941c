"""Faults of streams on real text: the client gets the first tokens of the whole answer."""

import pytest
from openai import APIConnectionError, OpenAI

from servemu.testing import Emulator

MODEL = "databricks-meta-llama-3-3-70b-instruct"
ASKED = [{"role": "user", "content": "Count from one to twenty in words."}]


def test_real_text_is_cut_at_exactly_the_token(real: Emulator, openai: OpenAI) -> None:
    create = openai.chat.completions.create
    fields = {"model": MODEL, "messages": ASKED, "temperature": 0, "max_tokens": 16}
    whole = create(**fields).choices[0].message.content  # type: ignore[call-overload]
    seen = []
    headers = {"X-Emulator-Fault": "cut=7"}
    stream = create(**fields, stream=True, extra_headers=headers)  # type: ignore[call-overload]
    with pytest.raises(APIConnectionError) as raised:
        for chunk in stream:
            seen.append(chunk)
    assert type(raised.value.__cause__).__name__ == "RemoteProtocolError"
    text = "".join(chunk.choices[0].delta.content or "" for chunk in seen)
    assert whole.startswith(text) and 0 < len(text) < len(whole)
    assert seen[-1].usage.completion_tokens == 7
