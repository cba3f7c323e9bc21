"""One file for each wire format, with its `router`."""

from __future__ import annotations

from typing import cast

from fastapi import Request

from pictura.server.guard import Caller
from pictura.server.service import Service

__all__ = ["caller", "service"]


def service(request: Request) -> Service:
    """The service behind a request, for `Depends`."""
    return cast(Service, request.app.state.service)


def caller(request: Request) -> Caller:
    """Who asks, as the guard knows them."""
    return cast(Caller, request.state.caller)
