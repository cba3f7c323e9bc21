"""distilabel's `ImageGeneration` task with what it lacks: every picture a row, seeds, saving and resuming."""

# No `from __future__ import annotations`: distilabel looks for the type of `process`'s parameter itself.
import hashlib
from collections.abc import Iterator
from typing import Any

from distilabel.models.image_generation.utils import image_from_str
from distilabel.steps.base import StepInput
from distilabel.steps.tasks import ImageGeneration as _ImageGeneration
from pydantic import Field

from pictura.request import MAX_SEED

__all__ = ["ImageGeneration"]


class ImageGeneration(_ImageGeneration):
    """Makes `num_generations` pictures of each row's prompt, and a row of each picture.

    Differs from distilabel's own in that a pipeline with it can be saved, loaded and resumed from its cache,
    that no picture is lost with `num_generations` above 1, that artifacts of one prompt do not overwrite each
    other, that pictures are kept as the model made them (PNG), and that stock models work in it too.

    Attributes:
        row_seeds: with a model of Pictura that has a `seed`, give each row its own, made of that seed and the
            row's prompt; so a row's pictures do not depend on the batch it came in.

    Input columns:
        - prompt (str): What to draw.
        - seed (int, optional): The seed of the row's first picture, instead of one of `row_seeds`.

    Output columns:
        - image (str): The picture as base64; None where it could not be made.
        - image_path (str): Its file, with `save_artifacts`.
        - model_name (str): Who made it.

    Categories:
        - image-generation
    """

    image_format: str = "PNG"
    row_seeds: bool = Field(default=True, description="Whether each row gets its own seed.")

    def dump(self, **kwargs: Any) -> dict[str, Any]:
        """Without `llm`, which is the model a second time and must not be given when loading."""
        dumped: dict[str, Any] = super().dump(**kwargs)
        dumped.pop("llm", None)
        return dumped

    @property
    def is_global(self) -> bool:
        """Never: distilabel asks stock models for an attribute that they do not have."""
        return False

    def process(self, inputs: StepInput) -> Iterator[list[dict[str, Any]]]:
        """A row for each picture; a row without a picture where a prompt got none."""
        model = self.image_generation_model
        said = model.get_generation_kwargs() or {}
        seeds = self._seeds(inputs, said)
        if seeds is not None:
            said = {**{name: value for name, value in said.items() if name != "seed"}, "seeds": seeds}
        answers = model.generate_outputs(
            inputs=[self.format_input(row) for row in inputs], num_generations=self.num_generations, **said
        )
        yield [made for row, answer in zip(inputs, answers, strict=True) for made in self._rows(row, answer)]

    def _rows(self, row: dict[str, Any], answer: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        """One for each picture in `answer`, whether a model gives them in one dictionary or in several."""
        images = [image for output in answer or () for image in output.get("images") or ()]
        for copy, image in enumerate(images or [None]):
            made = {"image": image, "model_name": self.image_generation_model.model_name}
            raw = {"images": [image] if image else []}
            kept = {"add_raw_output": bool(self.add_raw_output), "add_raw_input": bool(self.add_raw_input)}
            made = self._create_metadata(made, raw, row, **kept)
            if self.save_artifacts and image:
                made["image_path"] = self._kept(row, copy, image)
            yield {**row, **made}

    def _kept(self, row: dict[str, Any], copy: int, image: str) -> str:
        """Write the artifact; its name tells prompt, seed column and copy apart."""
        said = f"{row['prompt']}\0{row.get('seed')}\0{copy}"
        name = f"{hashlib.sha256(said.encode()).hexdigest()[:32]}.{self.image_format.lower()}"
        picture = image_from_str(image)
        self.save_artifact(
            name="images",
            write_function=lambda folder: picture.save(folder / name, format=self.image_format),
            metadata={"type": "image"},
        )
        return f"artifacts/{self.name}/images/{name}"

    def _seeds(self, inputs: list[dict[str, Any]], said: dict[str, Any]) -> list[int] | None:
        """One for each row, or None where the model takes none or all are to be random."""
        model = self.image_generation_model
        if "seed" not in type(model).model_fields:
            return None
        first = said.get("seed", model.seed)
        if any(row.get("seed") is not None for row in inputs):
            return [_own(row, first) if row.get("seed") is None else row["seed"] for row in inputs]
        if first is None or not self.row_seeds:
            return None
        return [_own(row, first) for row in inputs]


def _own(row: dict[str, Any], first: int | None) -> int:
    """A seed from `first` and the row's prompt, far from its neighbours' and with room above it."""
    digest = hashlib.sha256(f"{first}\0{row['prompt']}".encode()).digest()
    return int.from_bytes(digest[:4], "big") % (MAX_SEED + 1)
