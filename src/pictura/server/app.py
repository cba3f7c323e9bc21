"""The application: the guard around the routes of all wire formats, and the service behind them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import uvicorn
from fastapi import FastAPI

from pictura import __version__
from pictura.server import errors
from pictura.server.guard import Guard
from pictura.server.routes import about, files, health, images, jobs, openai, page
from pictura.server.service import Service
from pictura.server.settings import Settings

__all__ = ["create_app", "serve"]

ROUTERS = (
    jobs.router, images.router, about.router, files.router, health.router, page.router, openai.router,
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
    for router in ROUTERS:
        app.include_router(router)
    errors.install(app)
    app.add_middleware(Guard, settings=settings)
    return app


class _Server(uvicorn.Server):
    """Says where it is, and lets those who watch jobs go when it ends: they would keep it for ever."""

    service: Service

    async def startup(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        await super().startup(sockets)  # type: ignore[arg-type]
        if self.started:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            name = f"[{host}]" if ":" in host else host
            print(f"Pictura is at http://{name}:{port}/  (Ctrl-C ends it)", flush=True)

    async def shutdown(self, sockets: list[object] | None = None) -> None:  # type: ignore[override]
        self.service.watching.close()
        await super().shutdown(sockets)  # type: ignore[arg-type]


def serve(settings: Settings) -> None:
    """Run a server until it is told to stop (SIGINT, SIGTERM)."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=int(settings.grace) or 1,
    )
    server = _Server(config)
    server.service = app.state.service
    with suppress(KeyboardInterrupt):  # raised once everything has ended: that is what was asked for
        server.run()
