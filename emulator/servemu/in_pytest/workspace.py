"""A test's own workspace: what the fixture `serving_endpoints` is.

It speaks `http.client`, which libraries that play HTTP clients for tests leave alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPSConnection
from typing import Any
from urllib.parse import urlencode, urlsplit

Json = dict[str, Any]

TIMEOUT = 60.0
MATCH = frozenset({"operation", "endpoint", "entity", "header", "method", "path", "stream"})
WHEN = frozenset({"skip", "times", "probability", "seed", "state", "from", "from_", "until"})
RULE = frozenset({"id", "phase", "effect", "expires_in", "must_fire"})
LAST_REQUESTS = 10


class Refused(Exception):
    """The emulator answered an error; the text is its message."""


@dataclass(frozen=True, slots=True)
class ServingEndpoints:
    """An emulator's URL and a token that opens a workspace nobody else has."""

    url: str
    token: str

    def fault(self, what: str | Mapping[str, Any], **fields: Any) -> str:
        """Add a fault; answers the rule's id. `what`: a preset, an effect such as
        `status=503;retry-after=2`, or a whole rule. `fields`: those of the rule, of its `match`
        (endpoint, operation, …) and `when` (times, skip, …); all others are the effect's. Raises
        `Refused`.
        """
        added: str = self.ask("POST", "/_emulator/faults", rule_of(what, fields))["id"]
        return added

    def faults(self) -> list[Json]:
        """The rules with their ledger: matched, fired, remaining."""
        rules: list[Json] = self.ask("GET", "/_emulator/faults")["faults"]
        return rules

    def advance(self, seconds: float) -> None:
        """Move the workspace's clock; what falls due has happened when this returns."""
        self.ask("POST", "/_emulator/clock/advance", {"seconds": seconds})

    def verdict(self) -> Json:
        """The grade of the client, and the findings."""
        return self.ask("GET", "/_emulator/verdict")

    def requests(self, **wanted: str | int) -> list[Json]:
        """The journal, oldest first. `wanted`: operation, endpoint, status, since, limit."""
        query = f"?{urlencode(wanted)}" if wanted else ""
        entries: list[Json] = self.ask("GET", f"/_emulator/requests{query}")["requests"]
        return entries

    def reset(self) -> None:
        """Back to the workspace's first second."""
        self.ask("POST", "/_emulator/reset", {})

    def unfired(self) -> list[str]:
        """Ids of rules that must fire and did not."""
        return [rule["id"] for rule in self.faults() if rule["must_fire"] and not rule["fired"]]

    def report(self) -> str:
        """Verdict, ledger and last requests, for a person."""
        verdict = self.verdict()
        lines = [f"verdict: {verdict['grade']}, {verdict['requests']} requests"]
        for finding in verdict["findings"]:
            lines.append(f"{finding['grade']}: {finding['code']}: {finding['message']}")
        for rule in self.faults():
            lines.append(f"fault {rule['id']}: matched {rule['matched']}, fired {rule['fired']}")
        lines += [_line(entry) for entry in self.requests(limit=LAST_REQUESTS)]
        return "\n".join(lines)

    def ask(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Json:
        """One of the emulator's own routes. Raises `Refused`, and `OSError` when it is gone."""
        where = urlsplit(self.url)
        kind = HTTPSConnection if where.scheme == "https" else HTTPConnection
        connection = kind(where.hostname or "", where.port, timeout=TIMEOUT)
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        try:
            sent = None if body is None else json.dumps(body)
            connection.request(method, path, sent, headers)
            response = connection.getresponse()
            answer: Json = json.loads(response.read())
        finally:
            connection.close()
        if response.status != 200:
            raise Refused(str(answer.get("message", answer)))
        return answer


def rule_of(what: str | Mapping[str, Any], fields: Mapping[str, Any]) -> Json:
    """The rule on the wire of `/_emulator/faults`."""
    rule: Json = {"shorthand": what} if isinstance(what, str) else dict(what)
    match = {key: value for key, value in fields.items() if key in MATCH}
    when = {key.rstrip("_"): value for key, value in fields.items() if key in WHEN}
    rest = {key: value for key, value in fields.items() if key not in MATCH | WHEN | RULE}
    rule |= {key: value for key, value in fields.items() if key in RULE}
    for block, given in (("match", match), ("when", when), ("effect", rest)):
        if given:
            rule[block] = {**rule.get(block, {}), **given}
    return rule


def _line(entry: Json) -> str:
    status = "lost" if entry["status"] is None else f"{entry['status']} {entry['error_code']}"
    fault = f" [{entry['fault']}]" if entry["fault"] else ""
    return f"#{entry['number']} {entry['operation']} {entry['endpoint']}: {status.strip()}{fault}"
