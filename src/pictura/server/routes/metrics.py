"""/metrics: figures for Prometheus."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from pictura.server.metrics import Metrics
from pictura.server.routes import service
from pictura.server.service import Service

router = APIRouter(tags=["health"])


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(asked: Request, serving: Annotated[Service, Depends(service)]) -> Response:
    """Requests, queue, workers and memory, in Prometheus' text format."""
    text = await serving.thread(cast(Metrics, asked.app.state.metrics).text)
    return Response(text, headers={"content-type": CONTENT_TYPE_PLAIN_0_0_4})
