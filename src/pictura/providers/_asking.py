"""How a service is asked: its address, key and times, calls with retries, polling, downloads, refusals.

Everything that a user reads of a service's own words goes through `error` or `shown`, which take the keys
out.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from time import monotonic
from typing import Any, ClassVar
from urllib.parse import urljoin, urlsplit

from pictura.errors import ParameterError, ProviderError, shown
from pictura.providers._addresses import is_private_name
from pictura.providers._bodies import from_base64, rest_of_answer, text_of
from pictura.providers._calls import AGAIN, Call, Flow, Reply, Wait, retried
from pictura.providers._secrets import Secret, holds, redacted
from pictura.providers._settings import address, further_headers, number, origin, timeouts

__all__ = ["Asking"]

_LONG = 12  # letters of what is a key by its looks
_PAID = 6  # tries of a call for what is paid for, at least
_HINTS = {
    401: "check the key",
    402: "the account has no credit left",
    403: "check the key and what it may use",
    404: "check the model's name and base_url",
    413: "give smaller pictures",
    429: "lower concurrency or rate, or try later",
}


class Asking:
    """A service to ask. timeout: seconds to connect, for it to say something, and in all.

    max_retries: further tries of a call that failed for a reason that may go away. concurrency: requests at
    once. rate: requests begun a second, at most. headers: more of them, sent to the service with every call.
    The key comes from `api_key` or from one of the environment variables in `keys`; a service at an address
    of one's own may do without, which "" says.
    """

    name: ClassVar[str]
    title: ClassVar[str]  # as messages call it
    base: ClassVar[str] = ""
    keys: ClassVar[tuple[str, ...]] = ()
    needs_key: ClassVar[bool] = True  # at its own address
    needs_model: ClassVar[bool] = True  # also at an address of one's own
    at_once: ClassVar[int] = 8  # requests, unless the user says another number
    siblings: ClassVar[tuple[str, ...]] = ()  # domains of the service beside the base's host

    def __init__(
        self,
        model: str = "",
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        timeout: float | Sequence[float] | None = None,
        max_retries: int = 3,
        concurrency: int | None = None,
        rate: float | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        if not model and self.needs_model:
            raise ParameterError(
                f"there is no model for {self.title} to draw with; give {self.name}://MODEL",
                parameter="model",
            )
        self.model = model
        self.base_url = address(base_url or self.base, self.title)
        self.own = base_url is None or self.base_url == self.base.rstrip("/")
        self.timeout = timeouts(timeout)
        self.max_retries = number("max_retries", max_retries, 0, 100)
        self.concurrency = number(
            "concurrency", self.at_once if concurrency is None else concurrency, 1, 10_000
        )
        self.rate = None if rate is None else float(number("rate", rate, 0.001, 1e6, float))
        self.who = self.title if self.own or not self.base else f"the server at {self.base_url}"
        self._further = further_headers(headers)
        self._private = is_private_name(urlsplit(self.base_url).hostname or "")
        given = next(filter(None, map(os.environ.get, self.keys)), None) if api_key is None else api_key
        self._key = Secret(given) if given else None
        if self._key is None and self.own and self.needs_key:
            raise ParameterError(
                f"{self.title} needs a key; give api_key or set {' or '.join(self.keys)}", parameter="api_key"
            )
        secret = self._key is not None or bool(self._further)
        if secret and self.base_url.startswith("http://") and not self._private:
            raise ParameterError(
                f"base_url {shown(self.base_url)} would carry the key unencrypted; use https",
                parameter="base_url",
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.model!r} at {self.base_url}>"

    def headers(self) -> dict[str, str]:
        """What goes with every call to the service, the key among it, and to nobody else."""
        return {} if self._key is None else {"authorization": f"Bearer {self._key.reveal()}"}

    # Calls

    def call(self, method: str, where: str, **more: Any) -> Call:
        """A call to the service: `where` is a path under the base or a full address that the service gave."""
        url = where if "://" in where else f"{self.base_url}/{where.lstrip('/')}"
        headers = {"accept": "application/json"}
        if self._trusted(url):
            headers |= self.headers() | {name: value.reveal() for name, value in self._further.items()}
        headers |= more.pop("headers", {})
        more.setdefault("public", not self._private and not self._trusted(url))
        return Call(method, url, headers, timeout=self.timeout[:2], **more)

    def ask(self, call: Call, *, paid: bool = False) -> Flow[Reply]:
        """The answer to a call that succeeded, after retries; ProviderError for anything else.

        A redirection is followed only within the service, and never with the key to anyone else. paid: it
        asks for what is begun and billed, so it is not given up after few tries.
        """
        for _ in range(4):
            reply = yield from self._retried(call, paid)
            where = reply.headers.get("location")
            if not 300 <= reply.status < 400 or where is None:
                break
            url = urljoin(call.url, where)
            if origin(url) != origin(call.url) or (reply.status not in (307, 308) and call.method != "GET"):
                host = urlsplit(url).hostname or "another address"
                raise self.error(f"sends its callers on to {host}; give the right base_url", reply.status)
            call = replace(call, url=url)
        if not reply.ok:
            if call.stream:
                reply = replace(reply, content=(yield from rest_of_answer()))
            raise self.refused(reply)
        return reply

    def json(self, reply: Reply) -> Any:
        """The body as JSON; ProviderError when it is none."""
        try:
            return reply.json()
        except ProviderError:
            kind, size = reply.headers.get("content-type", "no content type"), len(reply.content)
            raise self.error(
                f"answered with {size} bytes of {shown(kind)} that are not JSON; check base_url", reply.status
            ) from None

    def ask_json(self, call: Call, *, paid: bool = False) -> Flow[Mapping[str, Any]]:
        """`ask` for an answer that is a JSON object."""
        reply = yield from self.ask(call, paid=paid)
        body = self.json(reply)
        if not isinstance(body, dict):
            raise self.error(f"answered {shown(body)} where an object was expected; check base_url")
        return body

    def follow(self, call: Call, done: Callable[[Mapping[str, Any]], bool]) -> Flow[Mapping[str, Any]]:
        """Ask again and again, with growing pauses, until `done` is true of the answer. Returns it.

        What is asked for is begun and billed: what may go away, such as a lost connection, ends nothing
        before the time in all is over.
        """
        pause, until = 0.3, monotonic() + self.timeout[2]
        while True:
            try:
                body = yield from self.ask_json(call, paid=True)
                if done(body):
                    return body
            except ProviderError as error:
                lasting = error.status is not None and error.status >= 300 and error.status not in AGAIN
                if lasting or not error.again or monotonic() > until:
                    raise
            if monotonic() > until:
                raise self.error(f"is not done after {self.timeout[2]:g} s; allow it more time")
            yield Wait(pause)
            pause = min(pause * 1.4, 5.0)

    def fetch(self, url: object) -> Flow[bytes]:
        """The file at an address that the service gave: the key goes along only if it is the service's own.

        ProviderError where the address is one that a service has no business to name.
        """
        if isinstance(url, str) and url.startswith("data:"):
            return from_base64(url)
        if not isinstance(url, str) or not url:
            raise self.error("named no address for the picture")
        where = urljoin(f"{self.base_url}/", url)
        for _ in range(4):
            if urlsplit(where).scheme not in ("http", "https"):
                raise self.error("named an address for the picture that is no http address")
            if self.base_url.startswith("https") and not where.startswith("https"):
                raise self.error("named an address for the picture that is not encrypted")
            same = origin(where) == origin(self.base_url)
            headers = {"accept": "image/*", **(self.headers() if same else {})}
            call = Call("GET", where, headers, timeout=self.timeout[:2], public=not (same or self._private))
            reply = yield from self._retried(call, paid=True)
            if not 300 <= reply.status < 400 or "location" not in reply.headers:
                break
            where = urljoin(where, reply.headers["location"])
        if not reply.ok:
            raise self.error(f"made a picture that cannot be fetched ({reply.status})", reply.status)
        return reply.content

    def _retried(self, call: Call, paid: bool) -> Flow[Reply]:
        attempts = self.max_retries + 1
        if not paid:
            return retried(call, attempts=attempts)
        return retried(call, attempts=max(attempts, _PAID), patience=self.timeout[2])

    def _trusted(self, url: str) -> bool:
        """Whether the key may go there: to the base's own origin, and to other hosts of the service."""
        if origin(url) == origin(self.base_url):
            return True
        host = urlsplit(url).hostname or ""
        return url.startswith("https://") and any(
            host == domain or host.endswith(f".{domain}") for domain in self.siblings
        )

    # Words

    def holds_key(self, value: object) -> bool:
        """Whether a key is in what the service says. Of further headers, short values are words."""
        own = [] if self._key is None else self._key.parts()
        further = [secret for secret in self._further.values() if len(secret.reveal()) >= _LONG]
        return holds(value, [*own, *further])

    def shown(self, text: object, limit: int = 500) -> str:
        """Words of the service on one line, cut, and without keys."""
        plain = redacted(str(text), self._secrets())
        plain = " ".join(plain.encode("utf-8", "replace").decode().replace("\0", " ").split())
        return plain if len(plain) <= limit else plain[: limit - 3] + "..."

    def _secrets(self) -> list[Secret]:
        keys = [*([] if self._key is None else [self._key]), *self._further.values()]
        return [part for key in keys for part in key.parts()]

    def error(self, what: str, status: int | None = None, again: bool = True) -> ProviderError:
        """`what` the service did, as an error without keys."""
        return ProviderError(f"{self.who} {self.shown(what)}", status=status, again=again)

    def refused(self, reply: Reply) -> ProviderError:
        """What an answer that is no success says, and what to do about it."""
        words = self.shown(self.reason(reply), 300).rstrip(".")
        hint = _HINTS.get(reply.status, "try later" if reply.status in AGAIN else "change the request")
        said = f": {words}" if words else ""
        return self.error(f"refused with {reply.status}{said}; {hint}", reply.status)

    def reason(self, reply: Reply) -> str:
        """The service's own words in an answer that is no success."""
        return text_of(reply)
