"""Retries are told from the same call made side by side."""

import pytest

from servemu.attempts import attempts
from servemu.entry import Entry

OK, BUSY, LOST = 200, 429, None


def asked(began: float, ended: float, status: int | None, retry: int | None = None) -> Entry:
    entry = Entry(began, began, "POST", "/x", "", "", retry)
    entry.ended, entry.at, entry.ended_at, entry.status = ended, began, ended, status
    return entry


@pytest.mark.parametrize(
    ("entries", "ordinals"),
    [
        pytest.param([asked(0, 1, BUSY), asked(2, 3, OK)], [1, 2], id="retry"),
        pytest.param([asked(0, 1, OK), asked(2, 3, OK)], [1, 1], id="again after an answer"),
        pytest.param([asked(0, 3, BUSY), asked(1, 4, BUSY)], [1, 1], id="side by side"),
        pytest.param([asked(0, 3, LOST), asked(1, 4, OK)], [1, 2], id="given up unnoticed"),
        pytest.param([asked(0, 1, BUSY), asked(122, 123, OK)], [1, 1], id="much later"),
        pytest.param(
            [asked(0, 1, BUSY), asked(0, 1, BUSY), asked(2, 3, BUSY), asked(2, 3, OK)],
            [1, 1, 2, 2],
            id="two rows side by side",
        ),
        pytest.param(
            [asked(0, 1, BUSY), asked(2, 3, BUSY), asked(0, 4, BUSY), asked(5, 6, OK, 2)],
            [1, 2, 1, 3],
            id="the client says which retry it is",
        ),
    ],
)
def test_attempts_of_a_call(entries: list[Entry], ordinals: list[int]) -> None:
    assert [attempt.ordinal for _, attempt in attempts(entries)] == ordinals
