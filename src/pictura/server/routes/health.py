"""/healthz and /readyz: whether the process lives, and whether it can do its work."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends
from fastapi.responses import JSONResponse

from pictura.errors import PicturaError
from pictura.server.routes import service
from pictura.server.service import Service

router = APIRouter(tags=["health"])


@router.get("/healthz")
async def healthz() -> dict[str, Any]:
    """It answers."""
    return {"status": "ok"}


@router.get("/readyz")
async def readyz(serving: Annotated[Service, Depends(service)]) -> JSONResponse:
    """The database answers and the default model has a worker."""
    try:
        workers = await serving.thread(serving.claims.workers)
    except PicturaError as error:
        return JSONResponse({"status": "waiting", "reason": str(error)}, 503)
    if any(w.model == serving.settings.default and w.state == "ready" for w in workers):
        return JSONResponse({"status": "ready"})
    failed = serving.supervisor.states().get(serving.settings.default) == "failed"
    state = "cannot be loaded; the log says why" if failed else "is being loaded"
    return JSONResponse({"status": "waiting", "reason": f"the default model {state}"}, 503)
