"""What a step expects, compared with what an emulator shows: one row each."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from servemu.scenarios.emulator import ENDPOINTS, FAULTS, Answer, Emulator, Json, count
from servemu.scenarios.schema import Count, EndpointState, Expect, Judgement, Requests, agrees


@dataclass(frozen=True, slots=True)
class Finding:
    """One expectation, met or not."""

    what: str
    expected: str
    got: str
    ok: bool


def of_answer(expect: Expect, answer: Answer) -> Iterator[Finding]:
    """Of the one request of a step, which is to be answered 200 when nothing is said."""
    status = expect.status or 200
    said = f"{answer.status} {answer.error_code}".strip()
    if expect.status is None and answer.status != 200:
        said += f" {answer.body.get('message', '')}"
    yield Finding("status", str(status), said, answer.status == status)
    if expect.error_code is not None:
        yield _same("error_code", expect.error_code, answer.error_code)
    if expect.message is not None:
        yield _within("message", expect.message, str(answer.body.get("message", "")))


def of_load(expect: Expect, answers: Sequence[Answer]) -> Iterator[Finding]:
    yield from _counts("answers", expect.answers, count(a.status for a in answers))
    yield from _counts("error_codes", expect.error_codes, count(a.error_code for a in answers))
    yield from _counts("served", expect.served, count(a.entity for a in answers))


def of_emulator(expect: Expect, emulator: Emulator) -> Iterator[Finding]:
    """Of endpoints, ledger, journal and verdict."""
    for name, state in expect.endpoints.items():
        yield from _endpoint(name, state, emulator.ask("GET", f"{ENDPOINTS}/{name}"))
    if expect.ledger:
        rules = emulator.admin("GET", FAULTS)["faults"]
        fired = Counter({rule["id"]: rule["fired"] for rule in rules})
        yield from _counts("ledger", expect.ledger, fired)
    for wanted in expect.requests:
        yield _requests(wanted, emulator)
    if expect.verdict is not None:
        yield from _verdict(expect.verdict, emulator.admin("GET", "/_emulator/verdict"))


def _endpoint(name: str, expected: EndpointState, answer: Answer) -> Iterator[Finding]:
    if expected.gone or answer.status != 200:
        found = "gone" if answer.status == 404 else f"{answer.status} {answer.error_code}".strip()
        yield Finding(
            name,
            "gone" if expected.gone else "there",
            found,
            expected.gone is True and found == "gone",
        )
        return
    shown, body = answer.body["state"], answer.body
    for field in ("ready", "config_update"):
        wanted = getattr(expected, field)
        if wanted is not None:
            yield _same(f"{name} {field}", wanted, shown[field])
    for field, key in (("config_version", "config"), ("pending_version", "pending_config")):
        wanted = getattr(expected, field)
        if wanted is not None:
            yield _same(
                f"{name} {field}", str(wanted), str(body.get(key, {}).get("config_version", 0))
            )
    yield from _entities(name, expected, body)


def _entities(name: str, expected: EndpointState, body: Json) -> Iterator[Finding]:
    config = body.get("pending_config") or body.get("config") or {}
    states = {entity["name"]: entity["state"] for entity in config.get("served_entities", [])}
    for entity, deployment in expected.entities.items():
        found = states.get(entity, {}).get("deployment", "no such entity")
        yield _same(f"{name}/{entity}", deployment, found)
    if expected.message is not None:
        messages = " | ".join(state["deployment_state_message"] for state in states.values())
        yield _within(f"{name} message", expected.message, messages)


def _requests(wanted: Requests, emulator: Emulator) -> Finding:
    query = f"operation={wanted.operation}&limit=1000000"
    query += f"&status={wanted.status}" if wanted.status else ""
    got = len(emulator.admin("GET", f"/_emulator/requests?{query}")["requests"])
    what = f"requests {wanted.operation} {wanted.status or ''}".strip()
    return Finding(what, wanted.count, str(got), agrees(wanted.count, got))


def _verdict(wanted: Judgement, verdict: Json) -> Iterator[Finding]:
    codes = sorted(
        {finding["code"] for finding in verdict["findings"] if finding["grade"] != "note"}
    )
    if wanted.grade is not None:
        said = f"{verdict['grade']} ({', '.join(codes)})" if codes else verdict["grade"]
        yield Finding("verdict", wanted.grade, said, verdict["grade"] == wanted.grade)
    if wanted.findings is not None:
        yield _same("findings", ", ".join(sorted(wanted.findings)), ", ".join(codes))


def _counts(what: str, wanted: Mapping[str, Count], got: Mapping[str, int]) -> Iterator[Finding]:
    for key, expected in wanted.items():
        ok = agrees(expected, got.get(key, 0))
        others = ", ".join(f"{k}: {n}" for k, n in sorted(got.items()))
        yield Finding(
            f"{what} {key}", expected, str(got.get(key, 0)) if ok else others or "none", ok
        )


def _same(what: str, expected: str, got: str) -> Finding:
    return Finding(what, expected, got, expected == got)


def _within(what: str, expected: str, got: str) -> Finding:
    return Finding(what, f"…{expected}…", got, expected in got)
