"""What the APIs of OpenAI, Hugging Face and AUTOMATIC1111 take and give here, for /openapi.json."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from pictura.server.documents.native import Seed, Text, example

__all__ = [
    "AutomaticError", "AutomaticImages", "Edit", "Generation", "HuggingFaceError", "ImageToImage",
    "Inference", "OpenAIError", "OpenAIImages", "OpenAIModel", "OpenAIModels", "Options", "PictureInfo",
    "PictureIn", "Progress", "TextToImage", "Variation",
]  # fmt: skip

Steps = Annotated[int, Field(ge=1, le=1000)]
Name = Annotated[str, Field(max_length=100)]
FORMATS = Literal["png", "jpeg", "webp"]
PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGM4YWQEAALAAR1jKn6cAAAAAElFTkSuQmCC"


class Beyond(BaseModel):
    """What goes beyond OpenAI's API."""

    seed: Seed | None = Field(None, description="Beyond OpenAI's API. Pictures have s, s + 1, ...")
    negative_prompt: Text | None = None
    num_steps: Steps | None = Field(None, description="Also as steps or num_inference_steps.")
    guidance_scale: float | None = None
    sampler: Name | None = None
    schedule: Name | None = None
    strength: float | None = None


class Looks(BaseModel):
    model: str | None = Field(None, description="The default model where there is none.")
    n: Annotated[int, Field(ge=1)] | None = None
    size: Annotated[str, Field(max_length=40)] | None = Field(None, description="WIDTHxHEIGHT or auto.")
    response_format: Literal["b64_json", "url"] | None = None
    output_format: FORMATS | None = None
    output_compression: Annotated[int, Field(ge=0, le=100)] | None = None
    stream: bool | None = None
    partial_images: Annotated[int, Field(ge=0, le=3)] | None = None
    quality: Any = Field(None, description="Accepted and told as ignored; so are style and moderation.")
    user: Any = None


class Generation(Looks, Beyond):
    model_config = example({"prompt": "a cat left of a pizza", "seed": 7, "num_steps": 20})
    prompt: Text
    options: dict[str, Any] | None = Field(None, description="What only some models know.")


class Edit(BaseModel):
    model_config = example({"prompt": "a cat in a hat", "image": PIXEL, "strength": "0.6"})
    image: Annotated[str, Field(json_schema_extra={"format": "binary"})]
    mask: Annotated[str | None, Field(json_schema_extra={"format": "binary"})] = None
    prompt: Text


class Variation(BaseModel):
    model_config = example({"image": PIXEL})
    image: Annotated[str, Field(json_schema_extra={"format": "binary"})]


class OpenAIItem(BaseModel):
    b64_json: str | None = None
    url: str | None = Field(None, description="Readable without a key for as long as the picture exists.")
    seed: int | None
    id: str


class OpenAIImages(BaseModel):
    model_config = example(
        {"created": 1795262400, "data": [{"b64_json": PIXEL, "seed": 7, "id": "0198c0ff"}], "size": "128x128"}
    )
    created: int
    data: Annotated[list[OpenAIItem], Field(min_length=1)]


class OpenAIModel(BaseModel):
    model_config = example({"id": "scenes", "object": "model", "created": 1795262400, "owned_by": "pictura"})
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class OpenAIModels(BaseModel):
    object: Literal["list"]
    data: list[OpenAIModel]


class OpenAISaid(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class OpenAIError(BaseModel):
    model_config = example(
        {"error": {"message": "n is 0", "type": "invalid_request_error", "param": "n", "code": None}}
    )
    error: OpenAISaid


class Inference(BaseModel):
    model_config = example({"inputs": "a cat", "parameters": {"seed": 7, "num_inference_steps": 20}})
    inputs: Text
    parameters: dict[str, Any] | None = Field(
        None,
        description="negative_prompt, width and height, num_inference_steps, guidance_scale, scheduler, "
        "seed, and what the model has besides.",
    )


class HuggingFaceError(BaseModel):
    model_config = example({"error": "there are no inputs; give the prompt"})
    error: str


class TextToImage(BaseModel):
    model_config = example({"prompt": "a cat", "seed": 7, "steps": 20, "width": 128, "height": 128})
    prompt: Text | None = None
    negative_prompt: Text | None = None
    seed: int | None = Field(None, description="-1 for a random one.")
    steps: Steps | None = None
    cfg_scale: float | None = None
    width: Annotated[int, Field(ge=0)] | None = Field(
        None, description="512x512 is a model's own size where it has but one."
    )
    height: Annotated[int, Field(ge=0)] | None = None
    batch_size: Annotated[int, Field(ge=1)] | None = None
    n_iter: Annotated[int, Field(ge=1)] | None = None
    sampler_name: str | None = None
    scheduler: str | None = None
    styles: list[str] | None = None
    override_settings: dict[str, Any] | None = None
    alwayson_scripts: dict[str, Any] | None = Field(
        None,
        description="controlnet, whose args are units: model, image, weight, guidance_start, guidance_end.",
    )
    send_images: bool | None = None


class ImageToImage(TextToImage):
    model_config = example({"init_images": [PIXEL], "prompt": "a cat", "denoising_strength": 0.6})
    init_images: Annotated[list[str], Field(min_length=1, max_length=1)] = Field(
        description="Base64 or a data URI."
    )
    mask: str | None = None
    denoising_strength: float | None = None
    inpainting_mask_invert: Annotated[int, Field(ge=0, le=1)] | None = None


class AutomaticImages(BaseModel):
    model_config = example({"images": [PIXEL], "parameters": {"prompt": "a cat"}, "info": '{"seed": 7}'})
    images: list[str]
    parameters: dict[str, Any]
    info: str = Field(description="JSON: all that made the pictures.")


class Progress(BaseModel):
    model_config = example(
        {
            "progress": 0.4, "eta_relative": 1.2, "current_image": None, "textinfo": None,
            "state": {"job": "0198c0ff", "job_count": 1, "sampling_step": 8, "sampling_steps": 20},
        }
    )  # fmt: skip
    progress: Annotated[float, Field(ge=0, le=1)]
    eta_relative: float
    state: dict[str, Any]
    current_image: str | None
    textinfo: str | None


class PictureIn(BaseModel):
    model_config = example({"image": PIXEL})
    image: str


class PictureInfo(BaseModel):
    model_config = example(
        {"info": "a cat\nSteps: 20, Seed: 7, Size: 128x128", "items": {}, "parameters": {}}
    )
    info: str
    items: dict[str, str]
    parameters: dict[str, str]


class Options(BaseModel):
    model_config = example({"sd_model_checkpoint": "scenes"})
    sd_model_checkpoint: str | None = None
    CLIP_stop_at_last_layers: Any = None


class AutomaticError(BaseModel):
    model_config = example({"error": "NoSampler", "detail": "Sampler not found", "body": "", "errors": ""})
    error: str
    detail: str
    body: str
    errors: str
