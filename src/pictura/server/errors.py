"""Errors as answers: the status, the headers, and the words in the envelope of the route's wire format."""

from __future__ import annotations

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.routing import Match

from pictura.errors import InputError, NotFound, ParameterError, PicturaError, PresetError, shown

__all__ = ["Busy", "Forbidden", "Late", "Unauthorised", "UnknownModel", "answer", "body_of", "install"]

_log = logging.getLogger(__name__)


class Busy(PicturaError):
    """The queue is full or a caller asks too often; retry_after: seconds, 120 at most."""

    http_status = 429

    def __init__(self, message: str, *, retry_after: int = 1) -> None:
        super().__init__(message)
        self.retry_after = min(max(1, retry_after), 120)


class Late(Busy):
    """It takes longer than an answer may; asked again, the same picture may be there."""

    http_status = 503


class Unauthorised(InputError):
    """No API key, or none that is known."""

    http_status = 401


class Forbidden(InputError):
    """Not for this caller, or not from there."""

    http_status = 403


class UnknownModel(PresetError):
    """A model that this server does not offer."""

    http_status = 404


def install(app: FastAPI) -> None:
    """Answer every error in the words of the route's format."""

    @app.exception_handler(PicturaError)
    def pictura_error(request: Request, error: PicturaError) -> JSONResponse:
        return answer(request.url.path, error)

    @app.exception_handler(RequestValidationError)
    def invalid(request: Request, error: RequestValidationError) -> JSONResponse:
        first = error.errors()[0] if error.errors() else {}
        place = [str(part) for part in first.get("loc", ())[1:]]  # after body, query or path
        name = ".".join(place) or "request"
        wrong = ParameterError(f"{name}: {first.get('msg', 'is not valid')}", parameter=name)
        return answer(request.url.path, wrong, status=422)

    @app.exception_handler(HTTPException)
    def http_error(request: Request, error: HTTPException) -> JSONResponse:
        said, headers = InputError(str(error.detail)), dict(error.headers or {})
        if error.status_code == 404:
            said = NotFound(f"there is nothing at {shown(request.url.path)}; /openapi.json lists all routes")
        if error.status_code == 405:
            headers |= _allowed(request)
            known = headers.get("allow", "another method")
            said = InputError(f"{request.method} is not possible at {shown(request.url.path)}; use {known}")
        return answer(request.url.path, said, status=error.status_code, headers=headers)

    @app.exception_handler(ClientDisconnect)
    def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)  # which nobody reads

    @app.exception_handler(Exception)
    def unexpected(request: Request, error: Exception) -> JSONResponse:
        _log.error("an unexpected error", exc_info=error)
        return answer(request.url.path, PicturaError("something went wrong here; the log says what"))


def _allowed(request: Request) -> dict[str, str]:
    """What may be asked of a path, by all of its routes and not only by the first."""
    here = [route for route in request.app.state.routes if route.matches(request.scope)[0] is not Match.NONE]
    methods = sorted({method for route in here for method in route.methods})
    return {"allow": ", ".join(methods)} if methods else {}


def answer(
    path: str, error: PicturaError, *, status: int | None = None, headers: dict[str, str] | None = None
) -> JSONResponse:
    """The answer to whoever asked for `path`."""
    status = status or error.http_status
    headers = dict(headers or {})
    if isinstance(error, Busy):
        headers["retry-after"] = str(error.retry_after)
    if status in (408, 413):
        headers["connection"] = "close"  # the rest of the body is not read
    if isinstance(error, Unauthorised):
        headers["www-authenticate"] = "Bearer"
    if status == 409 or (status >= 500 and status != 503):
        headers["x-should-retry"] = "false"  # OpenAI's clients would ask three times
    if path == "/" or path.startswith("/models/"):
        headers["x-error-message"] = shown(str(error), 1000)[1:-1].encode("ascii", "replace").decode()
    return JSONResponse(body_of(path, error, status), status, headers)


def body_of(path: str, error: PicturaError, status: int) -> dict[str, Any]:
    """What the answer says, in the envelope of the format that `path` belongs to."""
    parameter = getattr(error, "parameter", None)
    message = _sound(str(error) or type(error).__name__)
    parameter = None if parameter is None else _sound(parameter)
    if f"{path}/".startswith(("/v1/", "/openai/")):
        kind = "invalid_request_error" if status < 500 else "server_error"
        return {"error": {"message": message, "type": kind, "param": parameter, "code": _code(error, status)}}
    if path.startswith(("/sdapi/", "/controlnet/")):
        return {"error": type(error).__name__, "detail": message, "body": "", "errors": message}
    if path == "/" or path.startswith("/models/"):
        return {"error": message}
    said = {"message": message, "type": type(error).__name__}
    return {"error": said if parameter is None else {**said, "parameter": parameter}}


def _sound(text: str) -> str:
    """Half surrogate pairs, which no answer can hold, as escapes."""
    return text.encode("utf-8", "backslashreplace").decode()


def _code(error: PicturaError, status: int) -> str | None:
    known = {401: "invalid_api_key", 404: "not_found", 429: "rate_limit_exceeded"}
    return "model_not_found" if isinstance(error, UnknownModel) else known.get(status)
