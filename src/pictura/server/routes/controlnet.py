"""/controlnet: what clients of sd-webui-controlnet ask before they send units."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends

from pictura.server.routes import service
from pictura.server.routes.automatic1111 import Timed
from pictura.server.service import Service

router = APIRouter(prefix="/controlnet", tags=["automatic1111"], route_class=Timed)

Serving = Annotated[Service, Depends(service)]


@router.get("/version")
async def version() -> dict[str, int]:
    """Of the interface."""
    return {"version": 3}


@router.get("/model_list")
async def model_list(serving: Serving) -> dict[str, list[str]]:
    """The ControlNets, T2I- and IP-Adapters that units may name."""
    offered = await serving.thread(serving.adapters)
    return {"model_list": [name for names in offered.values() for name in names]}


@router.get("/module_list")
async def module_list() -> dict[str, Any]:
    """There are no preprocessors: pictures are sent as the network wants them."""
    return {"module_list": ["none"], "module_detail": {}}
