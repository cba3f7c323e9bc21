"""What the native API takes and gives, for /openapi.json. Bodies are read by the routes themselves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

__all__ = [
    "Adapters", "Choice", "Collection", "Collections", "Gathered", "Image", "Images", "Info", "Inspected",
    "Job", "Jobs", "Keys", "Loading", "Models", "Names", "NativeError", "Pages", "Rating", "Recorded",
    "Replayed", "Status", "Submission", "example",
]  # fmt: skip

Text = Annotated[str, Field(max_length=10_000)]
Seed = Annotated[int, Field(ge=0, le=2**63 - 1)]
Id = Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
A_SHA = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
AN_ID = "0198c0ffee0198c0ffee0198c0ffee01"
A_REQUEST: dict[str, Any] = {"prompt": "a cat left of a pizza", "seed": 7, "num_steps": 20}
AN_IMAGE = {
    "id": AN_ID, "url": f"/images/{AN_ID}.png", "thumbnail": f"/images/{AN_ID}/thumbnail",
    "made_at": "2026-11-21T12:00:00.000000Z", "size": [128, 128], "request": A_REQUEST,
    "model_digest": A_SHA, "stars": 5, "note": "the best so far", "job": AN_ID, "index": 0, "notes": [],
    "ignored": [], "timings": {"total": 0.8}, "version": "0.1.0", "sha256": A_SHA,
}  # fmt: skip
A_JOB = {
    "id": AN_ID, "status": "done", "total": 1, "made_at": 1795262400000000,
    "images": [{"id": AN_ID, "index": 0, "seed": 7, "url": f"/images/{AN_ID}.png"}], "failures": [],
}  # fmt: skip


def example(value: dict[str, Any], *, closed: bool = False) -> ConfigDict:
    """Of a model: what it looks like, and whether it has no other fields."""
    return ConfigDict(extra="forbid" if closed else "allow", json_schema_extra={"example": value})


class Asked(BaseModel):
    model_config = example({**A_REQUEST, "num_images": 2}, closed=True)
    prompt: Text
    negative_prompt: Text | None = None
    seed: Seed | None = Field(None, description="Drawn where there is none.")
    num_steps: Annotated[int, Field(ge=1, le=1000)] | None = None
    guidance_scale: float | None = None
    sampler: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    schedule: Annotated[str, Field(min_length=1, max_length=100)] | None = None
    size: str | Annotated[list[int], Field(min_length=2, max_length=2)] | None = Field(
        None, description='"WIDTHxHEIGHT" or [width, height]; the model\'s own where there is none.'
    )
    model: str | None = None
    options: dict[str, Any] | None = Field(None, description="What only some models know.")
    num_images: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        None, description="So many pictures, with the seeds s, s + 1, ..."
    )


class Submission(BaseModel):
    model_config = example({"requests": [A_REQUEST]}, closed=True)
    requests: Annotated[list[Asked], Field(min_length=1)]


class JobImage(BaseModel):
    id: str
    index: int
    seed: int | None
    url: str


class JobFailure(BaseModel):
    index: int
    error: str
    kind: str
    parameter: str | None = None


class Job(BaseModel):
    model_config = example(A_JOB)
    id: str
    status: Literal["queued", "running", "done", "failed", "cancelled"]
    total: int
    made_at: int = Field(description="Microseconds since 1970, UTC.")
    images: list[JobImage]
    failures: list[JobFailure]


class Jobs(BaseModel):
    model_config = example({"items": [A_JOB]})
    items: list[Job]


class Image(BaseModel):
    model_config = example(AN_IMAGE)
    id: str
    url: str
    thumbnail: str
    made_at: str
    size: list[int]
    request: dict[str, Any]
    model_digest: str | None
    stars: int | None
    note: str | None
    job: str | None
    index: int | None
    notes: list[str]
    ignored: list[str]
    timings: dict[str, float]
    sha256: str


class WholeImage(Image):
    model_config = example({**AN_IMAGE, "collections": ["favourites"]})
    collections: list[str]


class Images(BaseModel):
    model_config = example({"items": [AN_IMAGE], "next": None})
    items: list[Image]
    next: str | None


class Pages(BaseModel):
    model_config = example({"total": 120, "cursors": ["", "cursor-of-page-2"]})
    total: int
    cursors: list[Any]


class Rating(BaseModel):
    model_config = example({"stars": 4, "note": "good light"}, closed=True)
    stars: Annotated[int, Field(ge=0, le=5, description="0 or null withdraws them.")] | None = None
    note: Text | None = None


class Replayed(BaseModel):
    model_config = example({"identical": True, "differences": {}, "sentences": [], "image": AN_IMAGE})
    identical: bool
    differences: dict[str, Any]
    image: Image


class Choice(BaseModel):
    model_config = example({"winner": AN_ID, "loser": AN_ID.replace("1", "2")}, closed=True)
    winner: str
    loser: str


class Collection(BaseModel):
    name: str
    count: int


class Collections(BaseModel):
    model_config = example({"items": [{"name": "favourites", "count": 12}]})
    items: list[Collection]


class Gathered(BaseModel):
    model_config = example({"name": "favourites", "id": AN_ID})
    name: str
    id: str


class Info(BaseModel):
    model_config = example({"version": "0.1.0", "default_model": "scenes", "key_needed": False, "limits": {}})
    version: str
    default_model: str
    key_needed: bool
    limits: dict[str, Any]


class Model(BaseModel):
    name: str
    state: Literal["unloaded", "loading", "ready", "failed"]
    default: bool
    description: str
    details: dict[str, Any] = Field({}, description="Once it was loaded: what requests may say.")


class Models(BaseModel):
    model_config = example(
        {"items": [{"name": "scenes", "state": "ready", "default": True, "description": "built in"}]}
    )
    items: list[Model]


class Loading(BaseModel):
    model_config = example({"name": "scenes", "state": "loading"})
    name: str
    state: str


class Names(BaseModel):
    model_config = example({"items": ["ddim", "euler"]})
    items: list[str]


class Adapters(BaseModel):
    model_config = example({"control": ["canny", "sdxl/depth"], "reference": ["ip-adapter_sd15.safetensors"]})
    control: list[str]
    reference: list[str]


class Recorded(BaseModel):
    model_config = example({"sha256": A_SHA})
    sha256: str


class Inspected(BaseModel):
    model_config = example({"source": "pictura", "size": [128, 128], "request": A_REQUEST})
    source: Literal["pictura", "parameters", "none"]
    size: list[int]
    request: dict[str, Any] | None


class Status(BaseModel):
    model_config = example({"status": "ready"})
    status: str


class Keys(BaseModel):
    """An object of whatever there is."""

    model_config = example({})


class Said(BaseModel):
    message: str
    type: str
    parameter: str | None = None


class NativeError(BaseModel):
    model_config = example(
        {"error": {"message": "seed is -1; give a whole number 0..2^63-1", "type": "ParameterError"}}
    )
    error: Said
