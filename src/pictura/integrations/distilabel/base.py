"""The interface of distilabel's image models: its own classes where it is installed, else their like.

A model has `load`, `unload`, `model_name`, `get_generation_kwargs`, `generate` and `generate_outputs`; an
asynchronous one has `agenerate` for a single prompt instead of `generate`. Both answer, for each prompt, a
list of {"images": [base64 text, ...]}. `Images` holds what the interface leaves out and pipelines ask for.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from abc import ABC, abstractmethod
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr

__all__ = ["AsyncImageGenerationModel", "ImageGenerationModel", "Images", "Row", "RuntimeParameter", "finish"]

T = TypeVar("T")
Row = list[dict[str, Any]]  # the answer to one prompt: [{"images": [base64, ...]}]

# What may be set for each run of a pipeline: Optional[RuntimeParameter[int]]. distilabel knows it by this
# mark; its own alias holds a field's default besides, of which pydantic warns.
RuntimeParameter = Annotated[Union[T, None], "distilabel_step_runtime_parameter"]  # noqa: UP007 (a type of T)

try:
    from distilabel.models.image_generation.base import (
        AsyncImageGenerationModel,
        ImageGenerationModel,
    )
except ModuleNotFoundError:
    if not TYPE_CHECKING:

        class ImageGenerationModel(BaseModel, ABC):
            """A model that makes pictures from texts. `generation_kwargs` are given to every `generate`."""

            model_config = ConfigDict(
                arbitrary_types_allowed=True,
                protected_namespaces=(),
                validate_default=True,
                validate_assignment=True,
                extra="forbid",
            )

            generation_kwargs: dict[str, Any] | None = Field(default_factory=dict)
            _logger: logging.Logger | None = PrivateAttr(None)

            def load(self) -> None:
                """Make ready to generate. A subclass calls `super().load()`."""
                self._logger = logging.getLogger(f"{__name__}.{self.model_name}")

            def unload(self) -> None:
                """Let go of what `load` took."""

            @property
            @abstractmethod
            def model_name(self) -> str:
                """What results call the model."""

            @property
            def generate_parameters(self) -> list[inspect.Parameter]:
                """The parameters of `generate`, or of `agenerate` where that is what a subclass writes."""
                return list(inspect.signature(getattr(self, "agenerate", self.generate)).parameters.values())

            def get_generation_kwargs(self) -> dict[str, Any]:
                """What a task gives to `generate` beside the prompts."""
                return self.generation_kwargs or {}

            @abstractmethod
            def generate(self, inputs: list[str], num_generations: int = 1, **kwargs: Any) -> list[Row]:
                """An answer for each of `inputs`, in order."""

            def generate_outputs(
                self, inputs: list[str], num_generations: int = 1, **kwargs: Any
            ) -> list[Row]:
                """`generate` by the name that tasks use."""
                return self.generate(inputs=inputs, num_generations=num_generations, **kwargs)

        class AsyncImageGenerationModel(ImageGenerationModel):
            """A model that answers one prompt with `agenerate`; many prompts are asked together."""

            @abstractmethod
            async def agenerate(self, input: str, num_generations: int = 1, **kwargs: Any) -> Row:
                """The answer to one prompt."""

            _num_generations_param_supported = True  # else `agenerate` is asked once for each generation

            async def _agenerate(
                self, inputs: list[str], num_generations: int = 1, **kwargs: Any
            ) -> list[Row]:
                if self._num_generations_param_supported:
                    kwargs, each = {"num_generations": num_generations, **kwargs}, 1
                else:
                    each = num_generations
                asked = (self.agenerate(text, **kwargs) for text in inputs for _ in range(each))
                answers = await asyncio.gather(*asked)
                return [sum(answers[at : at + each], []) for at in range(0, len(answers), each)]

            def generate(self, inputs: list[str], num_generations: int = 1, **kwargs: Any) -> list[Row]:
                """`agenerate` for all of `inputs` at once."""
                return finish(self._agenerate(inputs, num_generations, **kwargs))


class Images:
    """What pipelines ask of a model and distilabel 1.5's image models do not have."""

    use_offline_batch_generation: ClassVar[bool] = False


def finish(work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, also where an event loop runs already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
