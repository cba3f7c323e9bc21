"""Providers: models behind an HTTP interface, one a file; others by the entry points `pictura.providers`.

A provider is a generator too: it yields what it wants from the world (`Call`, `Wait`), receives a `Reply`
and returns pictures. It is written once; `drive` runs it on a blocking client, `adrive` on an async one:

    def run(self, request):
        reply = yield from retried(Call("POST", url, headers=key, json={"prompt": request.prompt}))
        return [picture(reply.json())]

A file `x.py` here holds `PROVIDER`, the class for presets `x://MODEL`. Nothing in this package imports torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Protocol, cast, runtime_checkable

from pictura.discovery import found, loaded
from pictura.errors import ProviderError
from pictura.providers._calls import (
    AGAIN,
    WAITED,
    Call,
    Flow,
    More,
    Reply,
    Undo,
    Wait,
    Work,
    retried,
    retry_after,
)
from pictura.providers._drivers import adrive, drive
from pictura.request import Request

if TYPE_CHECKING:
    from pictura.picture import Picture


__all__ = [
    "AGAIN",
    "WAITED",
    "Call",
    "Flow",
    "More",
    "Provider",
    "ProviderError",
    "Reply",
    "Undo",
    "Wait",
    "Work",
    "adrive",
    "canonical",
    "drive",
    "known",
    "load",
    "names",
    "retried",
    "retry_after",
    "scheme",
]


@runtime_checkable
class Provider(Protocol):
    """A remote model. `run` raises ProviderError; one request's failure is no other's."""

    name: ClassVar[str]

    @property
    def parameters(self) -> frozenset[str]:
        """Of the common parameters and the seed, those it can pass on."""
        ...

    def check(self, request: Request) -> None:
        """ParameterError, naming what is allowed, before anything is sent."""
        ...

    def run(self, request: Request) -> Flow[list[Picture]]:
        """The calls that make the pictures of one request, and the pictures."""
        ...


_ALIASES = {"hf-inference": "huggingface", "a1111": "automatic1111"}  # other words for a provider's name


def canonical(word: str) -> str:
    """The name of the provider that a scheme or `api` stands for."""
    return _ALIASES.get(word, word)


def scheme(name: str) -> str:
    """How presets of the provider called `name` begin."""
    return next((word for word, known in _ALIASES.items() if known == name), name)


def known(word: str) -> bool:
    """Whether a scheme or `api` stands for a provider."""
    return canonical(word) in _all()


def names() -> tuple[str, ...]:
    """Every provider there is, sorted; imports none of them."""
    return tuple(_all())


def load(name: str) -> type[Provider]:
    """The class of the provider called `name`; ParameterError with the nearest name when there is none."""
    return cast(type[Provider], loaded("provider", name, _all()))


def _all() -> Mapping[str, str]:
    return found("providers", "PROVIDER")
