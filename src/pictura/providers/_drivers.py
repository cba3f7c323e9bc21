"""The two drivers: they make the calls that a provider's generator yields, and send it what came back."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from threading import Event as Signal
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from pictura.errors import Cancelled, ProviderError
from pictura.providers._addresses import is_public, target_of
from pictura.providers._bodies import Unpacked
from pictura.providers._calls import WAITED, Beside, Call, Flow, More, Reply, Undo, Wait, Work
from pictura.providers._general import General, Proxied, arguments, headers_of, proxies, unreachable
from pictura.providers._http import Pool

if TYPE_CHECKING:
    import httpx2 as httpx

    from pictura.picture import Event

T = TypeVar("T")
_PARTING = 5.0  # seconds that undoing what was given up may take
_TOLD = frozenset({"Step", "Preview", "Picture", "Failure"})


def drive(
    flow: Flow[T],
    client: httpx.Client | None = None,
    *,
    stop: Signal | None = None,
    tell: Callable[[Event], object] | None = None,
) -> T:
    """Run a provider's generator on a blocking client. `stop`, set from another thread, ends it (Cancelled).

    Without a `client` one is made for this run. `tell` is called with each picture and other event that the
    provider yields on the way. The generator is closed however the run ends.
    """
    import httpx2 as httpx

    stop = stop or Signal()
    own = client is None
    client = client or httpx.Client(follow_redirects=False)
    state = _State(flow, tell)
    pieces: Iterator[bytes] = iter(())
    response: httpx.Response | None = None
    try:
        while not isinstance(wanted := state.next(), _Done):
            if stop.is_set() or (isinstance(wanted, Wait) and stop.wait(wanted.seconds)):
                raise Cancelled("the request was cancelled before it was finished")
            try:
                if isinstance(wanted, Wait):
                    state.send(WAITED)
                elif isinstance(wanted, Work):
                    wanted.result = wanted.function()
                    state.send(WAITED)
                elif isinstance(wanted, More):
                    state.send(Reply(200, {}, next(pieces, b"")))
                else:
                    if response is not None:
                        response.close()
                    if wanted.public:
                        _check(wanted)
                    response = client.send(client.build_request(**arguments(wanted)), stream=True)
                    pieces = _pieces(wanted, response, response.iter_raw())
                    state.send(_reply(response, b"" if wanted.stream else b"".join(pieces)))
            except (httpx.HTTPError, httpx.InvalidURL, httpx.StreamError) as error:
                state.throw(unreachable(cast(Call, wanted), error))
            except ProviderError as error:
                state.throw(error)
        return cast(T, wanted.value)
    except BaseException:
        if state.undo is not None:
            with contextlib.suppress(httpx.HTTPError):
                client.request(**{**arguments(state.undo), "timeout": _PARTING})
        raise
    finally:
        flow.close()
        if response is not None:
            response.close()
        if own:
            client.close()


async def adrive(
    flow: Flow[T],
    client: httpx.AsyncClient | Pool | None = None,
    *,
    tell: Callable[[Event], object] | None = None,
    lost: Callable[[ProviderError], object] | None = None,
) -> T:
    """`drive` for asyncio; cancelling the task closes the generator and undoes what it can.

    lost: called with the error of each call that no answer came to, whether or not it is tried again.
    """
    own = Pool() if client is None else None
    link = _link(client if own is None else own)
    state = _State(flow, tell)
    answer: _Answer | None = None
    beside: asyncio.Task[None] | None = None
    unpacked = None
    try:
        while not isinstance(wanted := state.next(), _Done):
            try:
                if isinstance(wanted, Wait):
                    await asyncio.sleep(wanted.seconds)
                    state.send(WAITED)
                elif isinstance(wanted, Work):
                    wanted.result = await asyncio.to_thread(wanted.function)
                    state.send(WAITED)
                elif isinstance(wanted, More):
                    piece = b""
                    while answer is not None and not piece and (raw := await answer.piece()):
                        assert unpacked is not None
                        piece = unpacked.add(raw)
                    state.send(Reply(200, {}, piece))
                else:
                    if answer is not None:
                        answer.close()
                    if wanted.beside is not None:
                        beside = asyncio.create_task(_asked_beside(link, wanted.beside, tell))
                    answer = await link.open(wanted)
                    unpacked = Unpacked(answer.headers, wanted)
                    content = b"" if wanted.stream else await _whole(answer, unpacked)
                    state.send(Reply(answer.status, answer.headers, content))
            except ProviderError as error:
                if lost is not None:
                    lost(error)
                state.throw(error)
            finally:
                if beside is not None:
                    beside.cancel()
                    beside = None
        return cast(T, wanted.value)
    except BaseException:
        if state.undo is not None:
            await asyncio.shield(_parted(link, state.undo))
        raise
    finally:
        flow.close()
        if answer is not None:
            answer.close()
        if own is not None:
            await own.close()


async def _whole(answer: _Answer, unpacked: Unpacked) -> bytes:
    first = unpacked.add(await answer.piece())
    pieces = [first]
    while raw := await answer.piece():
        pieces.append(unpacked.add(raw))
    return first if len(pieces) == 1 else b"".join(pieces)


async def _asked_beside(link: _Link, beside: Beside, tell: Callable[[Event], object] | None) -> None:
    while True:
        await asyncio.sleep(beside.seconds)
        with contextlib.suppress(ProviderError):
            answer = await link.open(beside.call)
            try:
                content = await _whole(answer, Unpacked(answer.headers, beside.call))
            finally:
                answer.close()
            for event in beside.read(Reply(answer.status, answer.headers, content)):
                if tell is not None:
                    tell(event)


async def _parted(link: _Link, call: Call) -> None:
    with contextlib.suppress(ProviderError, TimeoutError):
        async with asyncio.timeout(_PARTING):
            (await link.open(call)).close()


@dataclass(frozen=True, slots=True)
class _Done:
    value: object


class _State:
    """A generator, how to go on with it, and what to undo if it is given up."""

    def __init__(self, flow: Flow[Any], tell: Callable[[Event], object] | None) -> None:
        self._flow, self._tell = flow, tell
        self._resume: Callable[[Any], object] = flow.send
        self._value: object = None
        self.undo: Call | None = None

    def next(self) -> Call | Wait | More | Work | _Done:
        """What the flow wants next, or its end. What is none of a provider's wishes is thrown back."""
        try:
            wanted = self._resume(self._value)
            while True:
                if isinstance(wanted, (Call, Wait, More, Work)):
                    return wanted
                if isinstance(wanted, Undo):
                    self.undo = wanted.call
                elif type(wanted).__name__ in _TOLD:
                    if self._tell is not None:
                        self._tell(cast("Event", wanted))
                else:
                    kind = type(wanted).__name__
                    wanted = self._flow.throw(
                        ProviderError(f"a provider must yield a Call or a Wait; this one yielded {kind}")
                    )
                    continue
                wanted = next(self._flow)  # what is told needs no answer, and may come from any iterator
        except StopIteration as done:
            self.undo = None
            return _Done(done.value)

    def send(self, reply: Reply) -> None:
        self._resume, self._value = self._flow.send, reply

    def throw(self, error: ProviderError) -> None:
        self._resume, self._value = self._flow.throw, error


class _Answer(Protocol):
    status: int
    headers: dict[str, str]

    async def piece(self) -> bytes: ...
    def close(self) -> None: ...


class _Link(Protocol):
    async def open(self, call: Call) -> _Answer: ...


def _link(client: httpx.AsyncClient | Pool | None) -> _Link:
    if isinstance(client, Pool):
        return Proxied(client) if proxies() else client
    assert client is not None
    return General(client)


def _check(call: Call) -> None:
    target = target_of(call.url, call.place)
    try:
        found = socket.getaddrinfo(target.name, target.port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise unreachable(call, error) from None
    if not all(is_public(str(entry[4][0])) for entry in found):
        raise ProviderError(f"{call.place} lies on a private network; it is not fetched", again=False)


def _pieces(call: Call, response: httpx.Response, raw: Iterator[bytes]) -> Iterator[bytes]:
    unpacked = Unpacked(headers_of(response), call)
    for piece in raw:
        if plain := unpacked.add(piece):
            yield plain


def _reply(response: httpx.Response, content: bytes) -> Reply:
    return Reply(response.status_code, headers_of(response), content)
