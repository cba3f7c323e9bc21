"""Any model of Pictura as a distilabel image model."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any, Optional

from pydantic import BaseModel, BeforeValidator, Field, PrivateAttr, SecretStr, field_validator, validate_call

from pictura.errors import InputError, ParameterError, shown

from .answers import Found, kept
from .base import AsyncImageGenerationModel, ImageGenerationModel, Images, Row, RuntimeParameter, finish

__all__ = ["AsyncDrawing", "AsyncPicturaImageGeneration", "PicturaImageGeneration", "Size"]

# distilabel recognises a runtime parameter by Optional[RuntimeParameter[...]], written so.
# ruff: noqa: UP045


def _size(value: object) -> object:
    """(640, 384) as "640x384"; what is neither is left to be refused."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return "x".join(map(str, value))
    return value


Size = Annotated[str, BeforeValidator(_size)]  # WIDTHxHEIGHT, or the two numbers


class _Held:
    """The loaded model. Copies, as a pipeline makes them for its processes, are empty: each loads its own."""

    def __init__(self, task: Any = None) -> None:
        self.task = task

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Held) and self.task is other.task

    def __reduce__(self) -> tuple[Any, ...]:
        return _Held, ()


class _Loaded(BaseModel, Images):
    """A model that is there between `load` and `unload`."""

    _held: _Held = PrivateAttr(default_factory=_Held)

    def unload(self) -> None:
        """Let go of the model."""
        self._held.task = None

    def _start(self, preset: str, **settings: Any) -> None:
        from pictura.task import TextToImage

        more = {"history": False, **settings}  # the pipeline keeps what it makes
        self._held.task = TextToImage.from_preset(preset, **more)

    def _ready(self) -> Any:
        if self._held.task is None:
            raise InputError(f"model {self.model_name!r} is not loaded; call load() first")  # type: ignore[attr-defined]
        return self._held.task


class _Settings(_Loaded):
    """What both models are told. None is the model's own default, and of a seed a random one."""

    model: RuntimeParameter[str] = Field(
        default="scenes", description="A preset of Pictura: a name, a folder or a handle."
    )
    seed: Optional[RuntimeParameter[int]] = Field(
        default=None, description="The seed of the first picture of a call; the next ones have seed + 1, ..."
    )
    num_steps: Optional[RuntimeParameter[int]] = Field(default=None, description="Steps of each picture.")
    guidance_scale: Optional[RuntimeParameter[float]] = Field(
        default=None, description="How strongly the prompt is followed."
    )
    size: Optional[RuntimeParameter[Size]] = Field(default=None, description="WIDTHxHEIGHT in pixels.")
    sampler: Optional[RuntimeParameter[str]] = Field(default=None, description="See pictura.samplers().")
    negative_prompt: Optional[RuntimeParameter[str]] = Field(
        default=None, description="What the pictures should not show."
    )
    options: Optional[RuntimeParameter[dict[str, Any]]] = Field(
        default_factory=dict, description="The model's own options, by name."
    )
    preset_kwargs: dict[str, Any] = Field(
        default_factory=dict, description="More arguments of TextToImage.from_preset, such as base_url."
    )
    api_key: Optional[RuntimeParameter[SecretStr]] = Field(
        default=None, description="The key of a remote model; by default from the service's own variable."
    )

    @field_validator("preset_kwargs")
    @classmethod
    def _without_a_key(cls, given: dict[str, Any]) -> dict[str, Any]:
        if "api_key" in given:  # it would be written into every dump and cache
            raise ParameterError(
                "preset_kwargs holds the api_key; give it as api_key=..., which is never saved",
                parameter="api_key",
            )
        return given

    @property
    def model_name(self) -> str:
        """As pictures record it."""
        return self.model or "scenes"

    def load(self) -> None:
        """Load the model; PresetError where there is none of that name."""
        super().load()  # type: ignore[misc]
        self._start(self.model_name, **self.preset_kwargs, **key_of(self.api_key))

    def _call(self, **said: Any) -> dict[str, Any]:
        """Arguments for `TextToImage.stream`: those of the call over the model's own."""
        own = {name: getattr(self, name) for name in said}
        values = {name: own[name] if value is None else value for name, value in said.items()}
        return {"negative_prompts": values.pop("negative_prompt"), **values, **(self.options or {})}


class PicturaImageGeneration(_Settings, ImageGenerationModel):
    """Any model of Pictura, local or remote, for `ImageGeneration` tasks.

    Pictures of one call share forward passes. One that cannot be made is logged and its prompt's answer is
    {"images": []}; if none can be made, the first error is raised.
    """

    @validate_call
    def generate(
        self,
        inputs: list[str],
        num_generations: int = 1,
        seed: Optional[int] = None,
        num_steps: Optional[int] = None,
        guidance_scale: Optional[float] = None,
        size: Optional[Size] = None,
        sampler: Optional[str] = None,
        negative_prompt: Optional[str] = None,
        seeds: Optional[list[int]] = None,
    ) -> list[list[dict[str, Any]]]:
        """Make pictures. What is not given is as in the model's fields.

        Args:
            inputs: The prompts.
            num_generations: Pictures for each prompt.
            seed: The seed of the first picture; the next ones have seed + 1, seed + 2, ...
            num_steps: Steps of each picture.
            guidance_scale: How strongly the prompt is followed.
            size: WIDTHxHEIGHT in pixels.
            sampler: A name from pictura.samplers().
            negative_prompt: What the pictures should not show.
            seeds: Instead of seed, one for each prompt: of its first picture.

        Returns:
            For each prompt [{"images": [base64 PNG, ...]}]. Each PNG tells how it was made.
        """
        call = self._call(
            seed=seed,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            size=size,
            sampler=sampler,
            negative_prompt=negative_prompt,
        )
        found = Found(len(inputs), num_generations, self._logger)
        requests = found.requests(inputs, seeds, call.pop("seed"))
        for event in self._ready().stream(requests, num_images=num_generations, **call):
            found.take(event)
        return found.rows()


class AsyncDrawing(_Loaded, AsyncImageGenerationModel):
    """What asynchronous models share: `agenerate` asks for one prompt, `generate` for all together."""

    async def _drawn(self, prompt: str, count: int, seed: int | None, **call: Any) -> Row:
        """The answer to one prompt; the first error is raised if no picture could be made."""
        found = Found(1, count, self._logger)
        requests = found.requests([prompt], None, seed)
        async for event in self._ready().astream(requests, num_images=count, **call):
            found.take(event)
        return found.rows()[0]

    async def _agenerate(
        self, inputs: Sequence[str], num_generations: int = 1, seeds: list[int] | None = None, **kwargs: Any
    ) -> list[Row]:
        """All prompts at once; one that fails does not cost the others theirs.

        Seeds are one for each prompt, or count on from `seed` where the model has one.
        """
        if isinstance(inputs, str):  # each of its letters would be drawn
            raise InputError(f"inputs is the text {shown(inputs)}; give a list of prompts")
        first = kwargs.pop("seed", None)
        first = getattr(self, "seed", None) if first is None else first
        if seeds is None and first is not None:
            seeds = [first + at * num_generations for at in range(len(inputs))]
        each: Sequence[dict[str, int]] = [{"seed": s} for s in seeds] if seeds else [{} for _ in inputs]
        asked = (
            self.agenerate(text, num_generations=num_generations, **own, **kwargs)
            for text, own in zip(inputs, each, strict=True)
        )
        return kept(inputs, await asyncio.gather(*asked, return_exceptions=True), self._logger)

    def generate(self, inputs: list[str], num_generations: int = 1, **kwargs: Any) -> list[Row]:
        """`agenerate` for all of `inputs` together; works inside a running event loop too."""
        return finish(self._agenerate(inputs, num_generations, **kwargs))


class AsyncPicturaImageGeneration(_Settings, AsyncDrawing):
    """The same with `agenerate`: prompts are asked together, which is what a remote model wants."""

    @validate_call
    async def agenerate(
        self,
        input: str,
        num_generations: int = 1,
        seed: Optional[int] = None,
        num_steps: Optional[int] = None,
        guidance_scale: Optional[float] = None,
        size: Optional[Size] = None,
        sampler: Optional[str] = None,
        negative_prompt: Optional[str] = None,
    ) -> list[dict[str, Any]]:
        """Make pictures for one prompt. What is not given is as in the model's fields.

        Args:
            input: The prompt.
            num_generations: Pictures to make.
            seed: The seed of the first picture; the next ones have seed + 1, seed + 2, ...
            num_steps: Steps of each picture.
            guidance_scale: How strongly the prompt is followed.
            size: WIDTHxHEIGHT in pixels.
            sampler: A name from pictura.samplers().
            negative_prompt: What the pictures should not show.

        Returns:
            [{"images": [base64 PNG, ...]}]. The first error is raised if no picture could be made.
        """
        call = self._call(
            seed=seed,
            num_steps=num_steps,
            guidance_scale=guidance_scale,
            size=size,
            sampler=sampler,
            negative_prompt=negative_prompt,
        )
        return await self._drawn(input, num_generations, call.pop("seed"), **call)


def key_of(given: SecretStr | None) -> dict[str, Any]:
    """The argument of `from_preset`."""
    return {} if given is None else {"api_key": given.get_secret_value()}
