"""One file for each wire format, with its `router`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from fastapi import APIRouter, Request

from pictura.server.guard import Caller
from pictura.server.service import Service

__all__ = ["caller", "post", "service"]


def service(request: Request) -> Service:
    """The service behind a request, for `Depends`."""
    return cast(Service, request.app.state.service)


def caller(request: Request) -> Caller:
    """Who asks, as the guard knows them."""
    return cast(Caller, request.state.caller)


F = TypeVar("F", bound=Callable[..., Any])


def post(router: APIRouter, path: str, **more: Any) -> Callable[[F], F]:
    """`router.post` for `path` with and without a slash at its end: clients write both."""

    def routed(function: F) -> F:
        router.post(path, **more)(function)
        router.post(f"{path}/", include_in_schema=False)(function)
        return function

    return routed
