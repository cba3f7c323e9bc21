"""/openapi.json: every route with what it takes and gives, its errors and examples.

The routes read their bodies themselves, more forgivingly than a schema can say; this puts beside each what
it takes. `schemathesis` holds one to the other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from pictura import __version__
from pictura.server.documents import clients, native

__all__ = ["Operation", "install", "operations"]

JSON = "application/json"
FORM = "multipart/form-data"
PICTURES = ("image/png", "image/jpeg", "image/webp")
REF = "#/components/schemas/{model}"
SECURITY = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "basic": {"type": "http", "scheme": "basic", "description": "The key is the password."},
    "api_key": {"type": "apiKey", "in": "header", "name": "api-key"},
}
WORDS = """Text to pictures. Without keys the server answers on loopback only; with keys every route but
picture files, the page's own, `/healthz` and `/readyz` needs one. Every GET answers HEAD as well, streams of
events excepted, and a slash at the end of a path changes nothing."""


@dataclass(frozen=True, kw_only=True)
class Operation:
    """takes: the body, of the media type `sent`, None for no body, bytes for a picture file.

    gives: the answer, None where its `types` are no JSON; status where that is not 200.
    """

    takes: type[BaseModel] | type[bytes] | None = None
    gives: type[BaseModel] | None = None
    types: tuple[str, ...] = (JSON,)
    sent: str = JSON


def operations() -> dict[tuple[str, str], Operation]:
    """By method and path."""
    made = Operation(takes=clients.Generation, gives=clients.OpenAIImages, types=(JSON, "text/event-stream"))
    edited = Operation(
        takes=clients.Edit, sent=FORM, gives=clients.OpenAIImages, types=(JSON, "text/event-stream")
    )
    varied = Operation(takes=clients.Variation, sent=FORM, gives=clients.OpenAIImages)
    inferred = Operation(takes=clients.Inference, types=PICTURES)
    azure = "/openai/deployments/{deployment}/images"
    return {
        ("post", "/api/jobs"): Operation(takes=native.Submission, gives=native.Job),
        ("get", "/api/jobs"): Operation(gives=native.Jobs),
        ("get", "/api/jobs/{id}"): Operation(gives=native.Job),
        ("delete", "/api/jobs/{id}"): Operation(gives=native.Job),
        ("get", "/api/jobs/{id}/events"): Operation(types=("text/event-stream",)),
        ("get", "/api/images"): Operation(gives=native.Images),
        ("get", "/api/pages"): Operation(gives=native.Pages),
        ("get", "/api/images/{id}"): Operation(gives=native.WholeImage),
        ("patch", "/api/images/{id}"): Operation(takes=native.Rating, gives=native.WholeImage),
        ("post", "/api/images/{id}/replay"): Operation(gives=native.Replayed),
        ("post", "/api/choices"): Operation(takes=native.Choice, gives=native.Choice),
        ("get", "/api/collections"): Operation(gives=native.Collections),
        ("put", "/api/collections/{name}/images/{id}"): Operation(gives=native.Gathered),
        ("delete", "/api/collections/{name}/images/{id}"): Operation(gives=native.Gathered),
        ("get", "/api/export"): Operation(types=("application/zip",)),
        ("get", "/api/info"): Operation(gives=native.Info),
        ("get", "/api/models"): Operation(gives=native.Models),
        ("post", "/api/models/{name}/load"): Operation(gives=native.Loading),
        ("get", "/api/samplers"): Operation(gives=native.Names),
        ("get", "/api/loras"): Operation(gives=native.Names),
        ("get", "/api/adapters"): Operation(gives=native.Adapters),
        ("post", "/api/attachments"): Operation(takes=bytes, gives=native.Recorded),
        ("post", "/api/inspect"): Operation(takes=bytes, gives=native.Inspected),
        ("get", "/images/{id}.png"): Operation(types=("image/png",)),
        ("get", "/images/{id}.jpeg"): Operation(types=("image/jpeg",)),
        ("get", "/images/{id}.webp"): Operation(types=("image/webp",)),
        ("get", "/images/{id}/thumbnail"): Operation(types=("image/webp",)),
        ("get", "/"): Operation(types=("text/html",)),
        ("get", "/static/{path}"): Operation(
            types=("text/html", "text/css", "text/javascript", "image/svg+xml")
        ),
        ("get", "/healthz"): Operation(gives=native.Status),
        ("get", "/readyz"): Operation(gives=native.Status),
        ("get", "/metrics"): Operation(types=("text/plain",)),
        ("post", "/v1/images/generations"): made,
        ("post", f"{azure}/generations"): made,
        ("post", "/v1/images/edits"): edited,
        ("post", f"{azure}/edits"): edited,
        ("post", "/v1/images/variations"): varied,
        ("get", "/v1/models"): Operation(gives=clients.OpenAIModels),
        ("get", "/v1/models/{id}"): Operation(gives=clients.OpenAIModel),
        ("post", "/models/{name}"): inferred,
        ("post", "/"): inferred,
        ("post", "/sdapi/v1/txt2img"): Operation(takes=clients.TextToImage, gives=clients.AutomaticImages),
        ("post", "/sdapi/v1/img2img"): Operation(takes=clients.ImageToImage, gives=clients.AutomaticImages),
        ("get", "/sdapi/v1/progress"): Operation(gives=clients.Progress),
        ("post", "/sdapi/v1/png-info"): Operation(takes=clients.PictureIn, gives=clients.PictureInfo),
        ("get", "/sdapi/v1/options"): Operation(gives=clients.Options),
        ("post", "/sdapi/v1/options"): Operation(takes=clients.Options),
    }


def install(app: FastAPI) -> None:
    """Let `app` tell of all its routes."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _document(app)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI's own documentation has it


def _document(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(title="Pictura", version=__version__, description=WORDS, routes=app.routes)
    known = operations()
    named: list[Any] = [model for one in known.values() for model in (one.takes, one.gives)]
    used = {model for model in named if _is_model(model)}
    errors = {native.NativeError, clients.OpenAIError, clients.HuggingFaceError, clients.AutomaticError}
    inputs: Any = [(model, "validation") for model in sorted(used | errors, key=lambda model: model.__name__)]
    _, schemas = models_json_schema(inputs, ref_template=REF)
    document["components"] = {"schemas": schemas["$defs"], "securitySchemes": SECURITY}
    document["security"] = [{}, *({name: []} for name in SECURITY)]
    itself = {"description": "OpenAPI 3.1", "content": {JSON: {"schema": {"type": "object"}}}}
    document["paths"]["/openapi.json"] = {
        "get": {"summary": "What you read here.", "tags": ["about"], "responses": {"200": itself}}
    }
    for path, methods in document["paths"].items():
        for method, said in methods.items():
            _complete(said, path, known.get((method, path), Operation()))
    return document


def _complete(said: dict[str, Any], path: str, operation: Operation) -> None:
    if operation.takes is bytes:
        content = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in PICTURES}
        said["requestBody"] = {"required": True, "content": content}
    elif operation.takes is not None:
        content = {operation.sent: {"schema": _ref(operation.takes)}}
        said["requestBody"] = {"required": True, "content": content}
    if path in ("/healthz", "/readyz") or path.startswith("/images/"):
        said["security"] = []  # for everybody
    responses = said["responses"]
    responses.pop("422", None)
    done = next(iter(responses.values()))
    if operation.gives is not None or operation.types != (JSON,):
        done["content"] = {kind: _media(kind, operation) for kind in operation.types}
    content = {JSON: {"schema": _ref(_error_of(path))}}
    if path == "/readyz":
        responses["503"] = {"description": "Not yet", "content": {JSON: {"schema": _ref(native.Status)}}}
    responses["4XX"] = {"description": "What was asked for cannot be", "content": content}
    responses["5XX"] = {"description": "What was asked for cannot be now", "content": content}


def _media(kind: str, operation: Operation) -> dict[str, Any]:
    if kind == JSON:
        return {"schema": _ref(operation.gives)}
    if kind == "text/event-stream":
        return {}  # no schema of OpenAPI 3.1 speaks of events
    return {"schema": {"type": "string", **({} if kind.startswith("text/") else {"format": "binary"})}}


def _ref(model: Any) -> dict[str, str]:
    return {"$ref": REF.format(model=model.__name__)}


def _is_model(model: object) -> bool:
    return isinstance(model, type) and issubclass(model, BaseModel)


def _error_of(path: str) -> type[BaseModel]:
    """The envelope of the format that a path belongs to."""
    if path.startswith(("/v1/", "/openai/")):
        return clients.OpenAIError
    if path.startswith(("/sdapi/", "/controlnet/")):
        return clients.AutomaticError
    return clients.HuggingFaceError if path == "/" or path.startswith("/models/") else native.NativeError
