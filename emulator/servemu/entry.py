"""One request of the journal and what came of it."""

from dataclasses import dataclass

from servemu.operation import operation_of


@dataclass(slots=True)
class Entry:
    """One request and its answer. Filled while it runs, unchanged from then on."""

    started: float
    """Monotonic seconds, as `ended` and the two `…_at` of the workspace's clock below."""
    real_time: float
    """Seconds since the epoch when it came, on the machine's clock."""
    method: str
    path: str
    query: str
    user_agent: str
    client_retry: int | None
    """Which retry the client says that this is (openai's `x-stainless-retry-count`)."""
    ended: float = 0.0
    at: float = 0.0
    ended_at: float = 0.0
    number: int = 0
    """Counts the entries of the workspace, from 1."""
    request_id: str = ""
    user: str = ""
    endpoint: str = ""
    entity: str = ""
    """The served entity that answered."""
    status: int | None = None
    """None: no answer was sent, or not to its end."""
    error_code: str = ""
    state: str = ""
    """What the answer showed of the endpoint: `READY UPDATE_FAILED`."""
    fault: str | None = None
    """The rule that was injected."""
    fault_phase: str = ""
    retry_after: str = ""
    should_retry: str = ""
    """The header `x-should-retry` that was sent."""
    body: int = 0
    """CRC-32 of the request's body: two of the same call have the same."""
    bytes_in: int = 0
    bytes_out: int = 0
    tokens_in: int = 0
    tokens_out: int = 0
    first_byte: float | None = None
    """Monotonic seconds, of a stream's first event."""

    @property
    def operation(self) -> str:
        return operation_of(self.method, self.path)

    @property
    def client(self) -> tuple[str, str]:
        """Who asks: the user, and what they ask with."""
        return self.user, self.user_agent

    @property
    def call(self) -> tuple[object, ...]:
        """The same for the same request sent again."""
        return (*self.client, self.method, self.path, self.body)

    @property
    def failed(self) -> bool:
        """It was refused, or its answer was lost."""
        return self.status is None or self.status >= 400
