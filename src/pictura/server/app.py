"""The application: the guard around the routes of all wire formats, and the service behind them."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from types import FrameType
from typing import Any

import uvicorn
from fastapi import FastAPI
from fastapi.middleware.cors import CORSMiddleware

from pictura import __version__
from pictura.errors import InputError, shown
from pictura.server import documents, errors, logs
from pictura.server.automatic import Desks
from pictura.server.guard import Guard
from pictura.server.metrics import Metrics
from pictura.server.protocol import with_deadline
from pictura.server.routes import (
    about,
    automatic1111,
    automatic1111_lists,
    controlnet,
    files,
    health,
    huggingface,
    images,
    jobs,
    metrics,
    openai,
    page,
)  # fmt: skip
from pictura.server.service import Service
from pictura.server.settings import Settings

__all__ = ["create_app", "serve"]

LONGER = 5  # seconds after the workers' grace for the last answers
HEAD = 32 << 10  # bytes of the first line and all headers of a request
ROUTERS = (
    jobs.router, images.router, about.router, files.router, health.router, metrics.router, openai.router,
    huggingface.router, automatic1111.router, automatic1111_lists.router,
    controlnet.router, page.router,
)  # fmt: skip


def create_app(settings: Settings) -> FastAPI:
    """The ASGI application of a server; its lifespan starts and ends the workers."""
    service = Service(settings)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        await service.start()
        try:
            yield
        finally:
            await service.stop()

    app = FastAPI(title="Pictura", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None)
    app.state.service = service
    app.state.desks = Desks()
    app.state.routes = [route for router in ROUTERS for route in router.routes]
    for router in ROUTERS:
        app.include_router(router)
    errors.install(app)
    documents.install(app)
    app.state.metrics = figures = Metrics(
        service.claims, listeners=service.listeners, limit=settings.limits.queue
    )
    app.add_middleware(
        Guard, settings=settings, rates=service.rates, seen=figures.seen, listeners=service.listeners
    )
    if settings.cors:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(settings.cors),
            allow_methods=["*"],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    return app


class _Server(uvicorn.Server):
    """Says where it is; at its end waits for what workers have begun and for who waits for that.

    Told to end a second time it ends at once: what was accepted is stored, and made after the next start.
    """

    service: Service

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            name = f"[{host}]" if ":" in host else host
            print(f"Pictura is at http://{name}:{port}/  (Ctrl-C ends it)", flush=True)

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        leaving = asyncio.create_task(self.service.retire())
        await super().shutdown(sockets)  # type: ignore[arg-type]
        await leaving

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            self.service.supervisor.kill()
            sys.stderr.write("ended at once; what is unfinished is made after the next start\n")
            sys.stderr.flush()
            os._exit(130)
        super().handle_exit(sig, frame)


def serve(settings: Settings) -> None:
    """Run a server until it is told to stop (SIGINT, SIGTERM)."""
    logs.install(settings.log)
    sockets = _bound(settings.host, settings.port)  # first: a taken port is to cost nothing
    app = create_app(settings)
    _ = app.state.service.history.engine  # where it cannot be opened nothing is started
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=with_deadline(settings.limits.head),
        ws="none",
        limit_concurrency=settings.limits.connections,
        h11_max_incomplete_event_size=HEAD,
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.grace) + LONGER,
    )
    server = _Server(config)
    server.service = app.state.service
    with suppress(KeyboardInterrupt):  # raised once everything has ended: that is what was asked for
        server.run(sockets)


def _bound(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of `host`, all with one port (0: a free one); PicturaError for none."""
    bound: list[socket.socket] = []
    try:
        for family, kind, protocol, _, (address, *_) in _addresses(host, port):
            one = socket.socket(family, kind, protocol)
            bound.append(one)
            one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            one.bind((address, port))
            port = one.getsockname()[1]
    except OSError as error:
        for one in bound:
            one.close()
        raise InputError(
            f"port {port} of {shown(host)} cannot be had ({error.strerror}); give another --port or --host"
        ) from None
    return bound


def _addresses(host: str, port: int) -> list[Any]:
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return list(dict.fromkeys(found))
