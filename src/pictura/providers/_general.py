"""The general HTTP client as a link of the drivers: where one is given, and where a proxy is to be used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies, proxy_bypass

from pictura.errors import ProviderError
from pictura.providers._addresses import allowed, target_of
from pictura.providers._calls import Call
from pictura.providers._http import AGENT, Answer, Pool

if TYPE_CHECKING:
    import httpx2 as httpx

__all__ = ["General", "Proxied", "arguments", "headers_of", "proxies", "unreachable"]


class General:
    """The general client as a link. Headers of answers may repeat a key: its debug log goes without them."""

    def __init__(self, client: httpx.AsyncClient) -> None:
        self._client = client
        for part in ("http11", "http2", "proxy"):
            logging.getLogger(f"httpcore2.{part}").addFilter(_tells_no_headers)

    async def open(self, call: Call) -> GeneralAnswer:
        import httpx2 as httpx

        try:
            if call.public:
                target = target_of(call.url, call.place)
                await allowed(target.name, target.port, call.place)
            request = self._client.build_request(**arguments(call))
            return GeneralAnswer(call, await self._client.send(request, stream=True))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise unreachable(call, error) from None


class GeneralAnswer:
    def __init__(self, call: Call, response: httpx.Response) -> None:
        self._call, self._response = call, response
        self.status, self.headers = response.status_code, headers_of(response)
        self._pieces: AsyncIterator[bytes] = response.aiter_raw()

    async def piece(self) -> bytes:
        import httpx2 as httpx

        try:
            return await anext(self._pieces, b"")
        except (httpx.HTTPError, httpx.StreamError) as error:
            raise unreachable(self._call, error) from None

    def close(self) -> None:
        # Closing an answer that is read to its end has nothing to wait for; another ends with its client.
        if not self._response.is_closed:
            asyncio.get_running_loop().create_task(self._response.aclose())


class Proxied:
    """A pool for hosts that the environment's proxy is not meant for, the general client for the others."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def open(self, call: Call) -> Answer | GeneralAnswer:
        target = target_of(call.url, call.place)
        if ("https" if target.secure else "http") not in proxies() or proxy_bypass(target.name):
            return await self._pool.open(call)
        return await General(self._pool.general()).open(call)


def _tells_no_headers(record: logging.LogRecord) -> bool:
    return "response_headers" not in record.getMessage()


@cache
def proxies() -> dict[str, str]:
    return {kind: where for kind, where in getproxies().items() if kind in ("http", "https")}


def arguments(call: Call) -> dict[str, Any]:
    headers = {"user-agent": AGENT, "accept": "*/*", "accept-encoding": "identity", **call.headers}
    if call.json is not None:
        headers = {"content-type": "application/json", **headers}
    connect, read = call.timeouts
    return {
        "method": call.method,
        "url": call.url,
        "headers": headers,
        "timeout": (connect, read, read, None),
        "content": call.body,
    }


def headers_of(response: httpx.Response) -> dict[str, str]:
    return {name.lower(): value for name, value in response.headers.items()}


def unreachable(call: Call, error: Exception) -> ProviderError:
    """Says where and how it failed, and not the query, which may hold a key."""
    late = type(error).__name__ == "ReadTimeout"
    return ProviderError(
        f"no answer from {call.method} {call.place} ({type(error).__name__}); "
        "check the address and the network",
        again=call.repeatable or not late,
    )
