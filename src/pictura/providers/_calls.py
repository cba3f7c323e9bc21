"""What a provider's generator may want from the world, what it is answered, and when to ask again."""

from __future__ import annotations

import json as _json
import random
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from functools import lru_cache
from time import time
from typing import TYPE_CHECKING, Any, TypeVar

from pictura.errors import ProviderError

if TYPE_CHECKING:
    from pictura.picture import Event

__all__ = ["AGAIN", "LIMIT", "WAITED", "Beside", "Call", "Flow", "More", "Reply", "Undo", "Wait", "Work"]

T = TypeVar("T")
_encoded = _json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 529})  # statuses that may go away
LIMIT = 64 << 20  # bytes of an answer; ten pictures of 4 megapixels in base64 stay below it


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request to make. `json` or `content` is the body; headers and body never show in a repr.

    timeout: seconds to connect and for the server to say something, one number for both or a pair.
    limit: bytes that the answer may have once it is unpacked. stream: answer as soon as the headers are
    there; `More` asks for the body. public: refuse hosts with private addresses, for addresses that a
    service gave. beside: what to ask while the answer is waited for.
    """

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: object = field(default=None, repr=False)
    content: bytes | None = field(default=None, repr=False)
    timeout: float | tuple[float, float] = 120.0
    limit: int = LIMIT
    stream: bool = False
    public: bool = False
    beside: Beside | None = field(default=None, repr=False)

    @property
    def repeatable(self) -> bool:
        """Whether to make it twice does no more than to make it once."""
        return self.method not in ("POST", "PATCH") or "idempotency-key" in self.headers

    @property
    def place(self) -> str:
        """The address without user and query, which may hold keys."""
        return _place(self.url)

    @property
    def body(self) -> bytes | None:
        """The bytes to send."""
        if self.json is None:
            return self.content
        return _encoded(self.json).encode()

    @property
    def timeouts(self) -> tuple[float, float]:
        """(connect, read) in seconds."""
        return self.timeout if isinstance(self.timeout, tuple) else (self.timeout, self.timeout)


@lru_cache(1000)
def _place(url: str) -> str:
    scheme, slashes, rest = url.partition("?")[0].partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}{slashes}{host.rpartition('@')[2]}{slash}{path}"


@dataclass(frozen=True, slots=True)
class Beside:
    """A call that `adrive` makes every `seconds` while another one waits for its answer; `drive` does not.

    read: the events in its answer, which are told. A call that fails is passed over.
    """

    call: Call
    seconds: float
    read: Callable[[Reply], Iterable[Event]]


@dataclass(frozen=True, slots=True)
class Wait:
    """Some time to let pass. It is answered with `WAITED`."""

    seconds: float


@dataclass(frozen=True, slots=True)
class More:
    """The next piece of the last streamed answer: a `Reply` with it as content, which is empty at the end."""


@dataclass(frozen=True, slots=True)
class Undo:
    """What to send if the request is given up before it is done, such as a job's cancellation."""

    call: Call


@dataclass(slots=True, eq=False)
class Work:
    """Something to compute off the event loop; afterwards `result` holds what `function` returned."""

    function: Callable[[], Any]
    result: Any = None


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back. `headers` have lower-case names."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes = field(default=b"", repr=False)

    @property
    def ok(self) -> bool:
        """Whether the status says success."""
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The body as JSON; ProviderError when it is none."""
        try:
            return _json.loads(self.content)
        except (ValueError, RecursionError):
            kind = self.headers.get("content-type", "no content type")[:80]
            raise ProviderError(
                f"the server answered {self.status} with {len(self.content)} bytes of {kind} that are not "
                "JSON; check that the address is the API's and not a web page's"
            ) from None


WAITED = Reply(0)
if TYPE_CHECKING:
    Flow = Generator[Call | Wait | More | Undo | Work | Event, Reply, T]
else:
    Flow = Generator


def retried(
    call: Call, attempts: int = 4, pause: float = 0.5, patience: float = 60.0, longest: float = 8.0
) -> Flow[Reply]:
    """Make a call until it is answered with a status that will not go away, `attempts` times at most.

    Between two tries it waits as long as Retry-After asks, and otherwise a random time below `pause`, which
    doubles each time up to `longest` (full jitter: many that fail together do not come back together). A
    server that asks for more than `patience` seconds is not waited for. Returns the last reply; raises the
    last ProviderError when no answer came. One whose answer did not come in time may still be at work: it is
    asked again only where that makes and bills nothing twice.
    """
    for attempt in range(1, attempts + 1):
        asked = None
        try:
            reply = yield call
        except ProviderError as error:
            if attempt == attempts or not error.again:
                raise
        else:
            said = reply.headers.get("x-should-retry", reply.headers.get("x-fal-retryable"))
            if said == "false" or (reply.status not in AGAIN and said != "true"):
                return reply
            asked = retry_after(reply, time())
            if attempt == attempts or (asked or 0) > patience:
                return reply
        if asked:  # those who were told the same moment must not all come at it
            yield Wait(asked + random.uniform(0, min(1.0, 0.1 * asked)))
        else:
            yield Wait(random.uniform(0, min(longest, pause * 2 ** (attempt - 1))))
    raise AssertionError("attempts must be 1 or more")


def retry_after(reply: Reply, now: float) -> float | None:
    """Seconds that a reply asks to wait: Retry-After as a number or a date (RFC 9110, section 10.2.3)."""
    exact = reply.headers.get("retry-after-ms", "").strip()
    if exact.replace(".", "", 1).isdecimal():
        return float(exact) / 1000
    value = reply.headers.get("retry-after", "").strip()
    try:
        if value.replace(".", "", 1).isdecimal():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return None
