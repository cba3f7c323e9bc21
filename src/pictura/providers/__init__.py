"""Providers: models behind an HTTP interface, one a file; others by the entry points `pictura.providers`.

A provider is a generator too: it yields what it wants from the world (`Call`, `Wait`), receives a `Reply`
and returns pictures. It is written once; `drive` runs it on a blocking client, `adrive` on an async one:

    def run(self, request):
        reply = yield from retried(Call("POST", url, headers=key, json={"prompt": request.prompt}))
        return [picture(reply.json())]

A file `x.py` here holds `PROVIDER`, the class for presets `x://MODEL`. Nothing in this package imports torch.
"""

from __future__ import annotations

import asyncio
import json as _json
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from threading import Event
from time import time
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, TypeVar, cast, runtime_checkable

from pictura.discovery import found, loaded
from pictura.errors import Cancelled, ProviderError
from pictura.request import Request

if TYPE_CHECKING:
    import httpx2 as httpx

    from pictura.picture import Picture

T = TypeVar("T")
AGAIN = frozenset({408, 409, 425, 429, 500, 502, 503, 504})  # statuses that may go away


@dataclass(frozen=True, slots=True)
class Call:
    """An HTTP request to make. `json` or `content` is the body; headers and body never show in a repr."""

    method: str
    url: str
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    json: object = field(default=None, repr=False)
    content: bytes | None = field(default=None, repr=False)
    timeout: float = 120.0


@dataclass(frozen=True, slots=True)
class Wait:
    """Some time to let pass. It is answered with `WAITED`."""

    seconds: float


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
        except ValueError as error:
            kind = self.headers.get("content-type", "no content type")
            raise ProviderError(
                f"the server answered {self.status} with {len(self.content)} bytes of {kind} that are not "
                "JSON; check that the address is the API's and not a web page's"
            ) from error


WAITED = Reply(0)
Flow = Generator[Call | Wait, Reply, T]


@runtime_checkable
class Provider(Protocol):
    """A remote model. `run` raises ProviderError; one request's failure is no other's."""

    name: ClassVar[str]
    parameters: ClassVar[frozenset[str]]  # of the common parameters and options, those it can pass on

    def check(self, request: Request) -> None:
        """ParameterError, naming what is allowed, before anything is sent."""
        ...

    def run(self, request: Request) -> Flow[list[Picture]]:
        """The calls that make the pictures of one request, and the pictures."""
        ...


def names() -> tuple[str, ...]:
    """Every provider there is, sorted; imports none of them."""
    return tuple(_all())


def load(name: str) -> type[Provider]:
    """The class of the provider called `name`; ParameterError with the nearest name when there is none."""
    return cast(type[Provider], loaded("provider", name, _all()))


def _all() -> Mapping[str, str]:
    return found("providers", "PROVIDER")


def retried(call: Call, attempts: int = 4, pause: float = 0.5, patience: float = 60.0) -> Flow[Reply]:
    """Make a call until it is answered with a status that will not go away, `attempts` times at most.

    Between two tries it waits as long as Retry-After asks, else `pause`, doubled each time. A server that
    asks for more than `patience` seconds is not waited for. Returns the last reply; raises the last
    ProviderError when no answer came.
    """
    for attempt in range(1, attempts + 1):
        seconds = pause * 2 ** (attempt - 1)
        try:
            reply = yield call
        except ProviderError:
            if attempt == attempts:
                raise
        else:
            if reply.status not in AGAIN or reply.headers.get("x-should-retry") == "false":
                return reply
            seconds = retry_after(reply, time()) or seconds
            if attempt == attempts or seconds > patience:
                return reply
        yield Wait(seconds)
    raise AssertionError("attempts must be 1 or more")


def retry_after(reply: Reply, now: float) -> float | None:
    """Seconds that a reply asks to wait: Retry-After as a number or a date (RFC 9110, section 10.2.3)."""
    value = reply.headers.get("retry-after", "").strip()
    try:
        if value.replace(".", "", 1).isdecimal():
            return float(value)
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except ValueError:
        return None


def drive(flow: Flow[T], client: httpx.Client | None = None, *, stop: Event | None = None) -> T:
    """Run a provider's generator on a blocking client. `stop`, set from another thread, ends it (Cancelled).

    Without a `client` one is made for this run. The generator is closed however the run ends.
    """
    import httpx2 as httpx

    stop = stop or Event()
    own = client is None
    client = client or httpx.Client(follow_redirects=False)
    resume: Callable[[], Call | Wait] = flow.__next__
    try:
        while True:
            wanted = _resumed(flow, resume)
            if isinstance(wanted, _Done):
                return cast(T, wanted.value)
            if stop.is_set() or (isinstance(wanted, Wait) and stop.wait(wanted.seconds)):
                raise Cancelled("the request was cancelled before it was finished")
            if isinstance(wanted, Wait):
                resume = _sending(flow, WAITED)
                continue
            try:
                response = client.request(**_arguments(wanted))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                resume = _throwing(flow, _unreachable(wanted, error))
            else:
                resume = _sending(flow, _reply(response))
    finally:
        flow.close()
        if own:
            client.close()


async def adrive(flow: Flow[T], client: httpx.AsyncClient | None = None) -> T:
    """`drive` on an asynchronous client; cancelling the task closes the generator."""
    import httpx2 as httpx

    own = client is None
    client = client or httpx.AsyncClient(follow_redirects=False)
    resume: Callable[[], Call | Wait] = flow.__next__
    try:
        while True:
            wanted = _resumed(flow, resume)
            if isinstance(wanted, _Done):
                return cast(T, wanted.value)
            if isinstance(wanted, Wait):
                await asyncio.sleep(wanted.seconds)
                resume = _sending(flow, WAITED)
                continue
            try:
                response = await client.request(**_arguments(wanted))
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                resume = _throwing(flow, _unreachable(wanted, error))
            else:
                resume = _sending(flow, _reply(response))
    finally:
        flow.close()
        if own:
            await client.aclose()


@dataclass(frozen=True, slots=True)
class _Done:
    value: object


def _resumed(flow: Flow[T], resume: Callable[[], Call | Wait]) -> Call | Wait | _Done:
    """Let a flow go on to what it wants next, or its end. Anything but a Call or a Wait is thrown back."""
    try:
        wanted: object = resume()
        while not isinstance(wanted, (Call, Wait)):
            kind = type(wanted).__name__
            wanted = flow.throw(
                ProviderError(f"a provider must yield a Call or a Wait; this one yielded {kind}")
            )
        return wanted
    except StopIteration as done:
        return _Done(done.value)


def _sending(flow: Flow[T], reply: Reply) -> Callable[[], Call | Wait]:
    return lambda: flow.send(reply)


def _throwing(flow: Flow[T], error: ProviderError) -> Callable[[], Call | Wait]:
    return lambda: flow.throw(error)


def _arguments(call: Call) -> dict[str, Any]:
    body: dict[str, Any] = {"content": call.content} if call.json is None else {"json": call.json}
    return {
        "method": call.method,
        "url": call.url,
        "headers": dict(call.headers),
        "timeout": call.timeout,
        **body,
    }


def _reply(response: httpx.Response) -> Reply:
    headers: Iterable[tuple[str, str]] = response.headers.items()
    return Reply(response.status_code, {name.lower(): value for name, value in headers}, response.content)


def _unreachable(call: Call, error: Exception) -> ProviderError:
    """Says where and how it failed, and not the query, which may hold a key."""
    place = call.url.partition("?")[0].rpartition("@")[2]
    return ProviderError(
        f"no answer from {call.method} {place} ({type(error).__name__}); check the address and the network"
    )
