"""Budget and queue as pure steps from one due time to the next: no clock, no event loop."""

from dataclasses import dataclass, field
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from servemu.throughput.allowance import MAX_RATE, Rate
from servemu.throughput.fair_queue import PROMPT_SHARE, SLICE_SECONDS, FairQueue, Stream
from servemu.throughput.terms import Surge, Terms

BURST = 0.05


@dataclass(frozen=True)
class Request:
    """Comes, asks for its answer in chunks, and may lose patience."""

    arrives: float
    prompt: int
    answer: int
    chunk: int
    patience: float | None = None


@dataclass
class Run:
    """What happened."""

    queue: FairQueue
    paid: list[tuple[float, float]] = field(default_factory=list)
    """(time, all that was paid by then)."""
    got: dict[Request, int] = field(default_factory=dict)
    """Tokens of the answer."""
    admitted: dict[Request, float] = field(default_factory=dict)


def simulate(rate: float, requests: list[Request], until: float = 1e9) -> Run:
    """Every request asks for its next chunk as soon as it has one."""
    run = Run(FairQueue([Rate(rate, BURST)]))
    queue = run.queue
    streams: dict[Stream, Request] = {}
    coming = sorted(enumerate(requests), key=lambda one: one[1].arrives)
    leaving: list[tuple[float, Stream]] = []
    now = 0.0

    def go_on(stream: Stream) -> None:
        request = streams[stream]
        left = request.answer - run.got.setdefault(request, 0)
        run.admitted.setdefault(request, now)
        if left > 0:
            queue.ask(stream, min(left, request.chunk), now)
        else:
            queue.leave(stream, now)

    while True:
        due = queue.due()
        times = [due] if due is not None else []
        times += [coming[0][1].arrives] if coming else []
        times += [min(leaving, key=lambda one: one[0])[0]] if leaving else []
        if not times or min(times) > until:
            return run
        now = max(now, min(times))
        asked = {stream: stream.asks for stream in streams}
        for stream in queue.pay(now):
            run.got[streams[stream]] = run.got.get(streams[stream], 0) + int(asked[stream])
            go_on(stream)
        run.paid.append((now, queue.paid))
        while coming and coming[0][1].arrives <= now:
            request = coming.pop(0)[1]
            stream = queue.enter(request.prompt, now)
            streams[stream] = request
            if request.patience is not None:
                leaving.append((now + request.patience, stream))
            if stream.admitted_at is not None:
                go_on(stream)
        for at, stream in [one for one in leaving if one[0] <= now]:
            queue.leave(stream, now)
            leaving.remove((at, stream))


requests = st.lists(
    st.builds(
        Request,
        arrives=st.integers(0, 40).map(lambda tenths: tenths / 10),
        prompt=st.integers(0, 300),
        answer=st.integers(0, 200),
        chunk=st.integers(1, 40),
        patience=st.none() | st.integers(0, 30).map(lambda tenths: tenths / 10 + 0.01),
    ),
    min_size=1,
    max_size=12,
    unique=True,
)
rates = st.sampled_from([10.0, 100.0, 980.0])


@given(coming=requests, rate=rates)
@settings(max_examples=30, deadline=None)
def test_no_window_has_more_than_rate_times_time_and_burst(
    coming: list[Request], rate: float
) -> None:
    paid = simulate(rate, coming).paid
    most = max(max(request.chunk for request in coming), rate * SLICE_SECONDS)
    for number, (begin, before) in enumerate(paid):
        for end, after in paid[number:]:
            assert after - before <= rate * (end - begin + BURST) + most + 1e-6
    assert paid[-1][1] <= rate * (paid[-1][0] - paid[0][0] + BURST) + 1e-6


@given(coming=requests, rate=rates)
@settings(max_examples=30, deadline=None)
def test_no_token_is_lost_or_paid_twice(coming: list[Request], rate: float) -> None:
    patient = [Request(r.arrives, r.prompt, r.answer, r.chunk) for r in dict.fromkeys(coming)]
    run = simulate(rate, list(dict.fromkeys(patient)))
    assert run.queue.paid == sum(r.prompt + r.answer for r in run.got)
    assert all(run.got[r] == r.answer for r in patient)
    assert run.queue.is_idle and run.queue.running == 0 and run.queue.waiting_tokens == 0


@given(coming=requests, rate=rates)
@settings(max_examples=30, deadline=None)
def test_leavers_leave_nothing_behind(coming: list[Request], rate: float) -> None:
    run = simulate(rate, coming)
    assert run.queue.is_idle and run.queue.running == 0 and run.queue.waiting_tokens == 0
    for request in coming:
        if request.patience is None:
            assert run.got[request] == request.answer


@given(sizes=st.lists(st.integers(1, 500), min_size=1, max_size=20))
@settings(max_examples=40, deadline=None)
def test_a_busy_budget_loses_no_time(sizes: list[int]) -> None:
    run = simulate(100.0, [Request(0.0, size, number, 1) for number, size in enumerate(sizes)])
    assert run.paid[-1][0] == pytest.approx(max(0.0, run.queue.paid / 100.0 - BURST))


@given(chunks=st.lists(st.integers(1, 64), min_size=2, max_size=10, unique=True), rate=rates)
@settings(max_examples=30, deadline=None)
def test_streams_get_equal_shares_whatever_their_chunks(chunks: list[int], rate: float) -> None:
    coming = [Request(0.0, 0, 10**6, chunk) for chunk in chunks]
    run = simulate(rate, coming, until=3_000 / rate)
    got = [run.got[request] for request in coming]
    assert max(got) - min(got) <= 2 * max(chunks)  # Goyal et al.: the two largest payments


@given(streams=st.integers(1, 30), chunk=st.integers(1, 64), prompts=st.integers(1, 5), rate=rates)
@settings(max_examples=30, deadline=None)
def test_prompts_have_their_share_while_streams_run(
    streams: int, chunk: int, prompts: int, rate: float
) -> None:
    running = [Request(0.0, 0, 10**6 + number, chunk) for number in range(streams)]
    waiting = [Request(1.0, 100, 0, number + 1) for number in range(prompts)]
    alone = 1.0 + 100 * prompts / (rate * PROMPT_SHARE)
    run = simulate(rate, running + waiting, until=alone + 10 * chunk / rate + 1.0)
    last = max(run.admitted[request] for request in waiting)
    assert last <= alone + run.queue.lag_seconds


def test_a_short_request_is_not_starved_by_long_ones() -> None:
    long = [Request(0.0, 5000, 5000, 8 + number) for number in range(8)]
    short = Request(1.0, 20, 20, 1)
    run = simulate(1000.0, [*long, short], until=3.0)
    assert run.got[short] == 20


def test_nobody_is_overtaken_by_who_comes_after_its_own_time() -> None:
    long = Request(0.0, 1000, 0, 1)
    short = [Request(number / 50, 20, 0, number + 1) for number in range(100)]
    run = simulate(1000.0, [long, *short], until=10.0)
    # 1 s alone, and no more than what came in that second goes before it.
    assert run.admitted[long] <= 1.0 + 51 * 20 / 1000 + SLICE_SECONDS


def test_a_stream_that_was_slow_has_saved_nothing() -> None:
    queue = FairQueue([Rate(100.0, 0.0)])
    busy, slow = queue.enter(0, 0.0), queue.enter(0, 0.0)
    now = 0.0
    for _ in range(100):
        queue.ask(busy, 1, now)
        now = queue.due() or now
        assert queue.pay(now) == [busy]
    queue.ask(busy, 1, now)
    queue.ask(slow, 1, now)
    order = []
    for _ in range(10):
        now = queue.due() or now
        for stream in queue.pay(now):
            order.append(stream)
            queue.ask(stream, 1, now)
    assert all(one is not other for one, other in pairwise(order))


def test_new_rate_holds_from_the_next_payment() -> None:
    queue = FairQueue([Rate(100.0, 0.0)])
    first, second = queue.enter(0, 0.0), queue.enter(0, 0.0)
    queue.ask(first, 100, 0.0)
    queue.ask(second, 100, 0.0)
    assert queue.due() == 1.0
    queue.set_rates([Rate(1000.0, 0.0)])
    assert queue.due() == 1.0
    queue.pay(1.0)
    assert queue.due() == pytest.approx(1.1)


def test_surge_uses_saved_time_at_its_rate_and_then_the_provisioned_one() -> None:
    queue = FairQueue(Terms(surge=Surge(2.0, 10.0), burst_seconds=0.0).rates(100.0))
    queue.pay(0.0)
    stream = queue.enter(0, 100.0)  # idle long enough to have saved 10 s
    times = {}
    now = 100.0
    for tokens in range(1, 3001):
        queue.ask(stream, 1, now)
        now = queue.due() or now
        queue.pay(now)
        times[tokens] = now - 100.0
    assert times[2000] == pytest.approx(10.0, abs=0.02)  # twice the rate, until 1000 were saved up
    assert times[3000] == pytest.approx(20.0, abs=0.02)


def test_no_surge_means_never_above_the_rate() -> None:
    queue = FairQueue(Terms(burst_seconds=0.0).rates(100.0))
    stream = queue.enter(0, 100.0)
    queue.ask(stream, 100, 100.0)
    assert queue.due() == 101.0


def test_a_year_of_idleness_is_only_a_burst() -> None:
    queue = FairQueue([Rate(100.0, BURST)])
    queue.enter(1000, 3.2e7)
    due = 0.0
    while (next_due := queue.due()) is not None:
        due = next_due
        queue.pay(due)
    assert due - 3.2e7 == pytest.approx(10.0 - BURST)


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf"), MAX_RATE * 2])
def test_rate_that_means_nothing_is_refused(rate: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Rate(rate)


@pytest.mark.parametrize("seconds", [-1.0, float("nan"), float("inf")])
def test_burst_that_means_nothing_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="burst"):
        Rate(1.0, seconds)
