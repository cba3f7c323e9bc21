"""distilabel's `ImageGeneration` task with what it lacks: every picture a row, seeds, saving and resuming."""

# No `from __future__ import annotations`: distilabel looks for the type of `process`'s parameter itself.
import base64
import hashlib
import io
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Optional

from PIL import Image
from pydantic import Field, PrivateAttr

from pictura.errors import ParameterError, PicturaError, shown

from .finished import Finished, digest
from .models import AsyncDrawing, PicturaImageGeneration

try:
    from distilabel.constants import DISTILABEL_METADATA_KEY
    from distilabel.steps.base import StepInput
    from distilabel.steps.tasks import ImageGeneration as _ImageGeneration
    from distilabel.utils.dicts import group_dicts
except ModuleNotFoundError as error:
    message = f"ImageGeneration needs distilabel ({error.name}); pip install 'pictura[distilabel]'"
    raise ModuleNotFoundError(message, name=error.name) from error

__all__ = ["ImageGeneration"]


class ImageGeneration(_ImageGeneration):
    """Makes `num_generations` pictures of each row's prompt, and a row of each picture.

    Differs from distilabel's own in that a pipeline with it can be saved, loaded and resumed from its cache,
    that no picture is lost with `num_generations` above 1, that a row that cannot be drawn costs no other,
    that artifacts do not overwrite each other, that pictures are kept as the model made them (PNG), and that
    stock models work in it too.

    Attributes:
        group_generations: one row for each prompt, with a list of its pictures.
        row_seeds: with a model of Pictura and a `seed`, give each row its own, made of that seed and the
            row's prompt; so a row's pictures do not depend on the batch it came in.
        keep_in: a folder that keeps the pictures of finished rows. A run that was killed goes on from it, and
            one with failed rows draws only those again. distilabel's own cache can do neither, and is not
            asked for this step then. Rows without a seed that are alike in every column share their pictures.

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
    keep_in: Optional[str] = Field(default=None, description="A folder that keeps finished pictures.")  # noqa: UP045

    _finished: Optional[Finished] = PrivateAttr(None)  # noqa: UP045

    def model_post_init(self, context: Any, /) -> None:
        """With `keep_in`, rows come to `process` again after a kill, and are found finished there."""
        super().model_post_init(context)
        if self.keep_in is not None:
            self.use_cache = False

    def load(self) -> None:
        """Load the model; FileError where nothing can be kept in `keep_in`."""
        if self.keep_in is not None:
            self._finished = Finished(self.keep_in)
        super().load()

    def dump(self, **kwargs: Any) -> dict[str, Any]:
        """Without `llm`, which is the model a second time and must not be given when loading."""
        dumped: dict[str, Any] = super().dump(**kwargs)
        dumped.pop("llm", None)
        return dumped

    @property
    def signature(self) -> str:
        """Of all that is dumped and matters; distilabel's own fails at options that hold lists of lists."""
        apart = {*self.exclude_from_signature, "keep_in"}
        return digest({name: value for name, value in self.dump().items() if name not in apart})

    @property
    def is_global(self) -> bool:
        """Never: distilabel asks stock models for an attribute that they do not have."""
        return False

    @property
    def inputs(self) -> dict[str, bool]:
        """A prompt, and a seed where there is one."""
        return {"prompt": True, "seed": False}

    def process(self, inputs: StepInput) -> Iterator[list[dict[str, Any]]]:
        """A row for each picture; a row without a picture where a prompt got none."""
        said = dict(self.image_generation_model.get_generation_kwargs() or {})
        found: list[list[str]] = [[] for _ in inputs]
        asked: list[tuple[int, str, int | None, str]] = []  # row, prompt, seed, and the name to keep it by
        for at, row in enumerate(inputs):
            try:
                prompt, seed = self._prompt(row), self._seed(row, at, said)
            except ParameterError as error:
                self._logger.warning("no picture of %.60r: %s", row.get("prompt"), error)
                continue
            name = self._name(row, prompt, seed, said)
            found[at] = self._finished.get(name) if self._finished else []
            if not found[at]:
                asked.append((at, prompt, seed, name))
        answers = self._drawn([prompt for _, prompt, _, _ in asked], [seed for _, _, seed, _ in asked], said)
        for (at, _, _, name), images in zip(asked, answers, strict=True):
            found[at] = images
            self._keep(name, images)
        yield [made for row, images in zip(inputs, found, strict=True) for made in self._rows(row, images)]

    # What is asked

    def _prompt(self, row: dict[str, Any]) -> str:
        prompt = self.format_input({"prompt": None, **row})
        if not isinstance(prompt, str):
            raise ParameterError(f"prompt is {shown(prompt)}; give a text", parameter="prompt")
        return prompt

    def _seed(self, row: dict[str, Any], at: int, said: dict[str, Any]) -> int | None:
        """The column's, or one of the model's; None where the model takes none or it is to be random."""
        model, given = self.image_generation_model, row.get("seed")
        if not isinstance(model, (PicturaImageGeneration, AsyncDrawing)):
            return None
        if given is not None and given == given:  # NaN is how tables say that there is none
            if isinstance(given, bool) or not isinstance(given, (int, float)) or given != int(given):
                raise ParameterError(f"seed is {shown(given)}; give a whole number", parameter="seed")
            return int(given)
        first = said.get("seed", getattr(model, "seed", None))
        if first is None:
            return None
        return _own(row, first) if self.row_seeds else int(first) + at * self.num_generations

    def _name(self, row: dict[str, Any], prompt: str, seed: int | None, said: dict[str, Any]) -> str:
        """What a row's pictures are kept by: all that decides them."""
        # Without a seed, other columns tell rows with the same prompt apart.
        columns = {name: row[name] for name in row.keys() - {DISTILABEL_METADATA_KEY}} if seed is None else {}
        model = self.image_generation_model.dump()
        return digest([model, said, self.num_generations, prompt, seed, columns])

    def _drawn(self, prompts: list[str], seeds: list[int | None], said: dict[str, Any]) -> list[list[str]]:
        """The pictures of each prompt, none where they could not be made."""
        if any(seed is not None for seed in seeds):
            said = {name: value for name, value in said.items() if name != "seed"}
            said["seeds"] = [secrets.randbelow(2**31) if seed is None else seed for seed in seeds]
        if not prompts:
            return []
        try:
            answers = self.image_generation_model.generate_outputs(
                inputs=prompts, num_generations=self.num_generations, **said
            )
        except Exception as error:  # stock models raise what they please
            self._logger.warning("no pictures of %d prompts: %s", len(prompts), error)
            return [[] for _ in prompts]
        # A model may give them in one dictionary or in several.
        return [[image for made in answer or () for image in made.get("images") or ()] for answer in answers]

    # What comes of it

    def _keep(self, name: str, images: list[str]) -> None:
        """For a later run, if nothing is missing."""
        if self._finished is not None and len(images) >= self.num_generations:
            try:
                self._finished.put(name, images)
            except PicturaError as error:
                self._logger.warning("a row is not kept for a later run: %s", error)

    def _rows(self, row: dict[str, Any], images: list[str]) -> list[dict[str, Any]]:
        """One for each of `images`, one without a picture for none; with `group_generations` one of all."""
        rows = [self._row(row, copy, image) for copy, image in enumerate(images)] or [self._row(row, 0, None)]
        if self.group_generations:
            rows = [group_dicts(*rows) | {"model_name": self.image_generation_model.model_name}]
        return [{**row, **made} for made in rows]

    def _row(self, row: dict[str, Any], copy: int, image: str | None) -> dict[str, Any]:
        """The columns that are added, with the metadata of earlier tasks."""
        made: dict[str, Any] = {"image": image, "model_name": self.image_generation_model.model_name}
        if self.save_artifacts:
            made["image_path"] = self._saved(row, copy, image) if image else None
        if earlier := row.get(DISTILABEL_METADATA_KEY):
            made[DISTILABEL_METADATA_KEY] = dict(earlier)
        kept = {"add_raw_output": bool(self.add_raw_output), "add_raw_input": bool(self.add_raw_input)}
        made = self._create_metadata(made, {"images": [image] if image else []}, row, **kept)
        return made

    def _saved(self, row: dict[str, Any], copy: int, image: str) -> str | None:
        """Write the artifact, by what it shows of which prompt; None where that failed."""
        content = base64.b64decode(image)
        name = f"{digest([row['prompt'], copy, image])[:32]}.{self.image_format.lower()}"
        try:
            self.save_artifact(
                name="images",
                write_function=lambda folder: _write(folder / name, content, self.image_format),
                metadata={"type": "image"},
            )
        except (OSError, KeyError, ValueError) as error:  # the picture itself is in the row
            self._logger.warning("an artifact could not be written as %s: %s", self.image_format, error)
            return None
        return f"artifacts/{self.name}/images/{name}"


def _write(path: Path, content: bytes, wanted: str) -> None:
    """As it came where it has the format already, for a PNG tells how it was made."""
    wanted = {"JPG": "JPEG"}.get(wanted.upper(), wanted.upper())
    with Image.open(io.BytesIO(content)) as picture:
        if picture.format == wanted:
            path.write_bytes(content)
        elif wanted == "JPEG":
            picture.convert("RGB").save(path, format=wanted)
        else:
            picture.save(path, format=wanted)


def _own(row: dict[str, Any], first: int) -> int:
    """A seed from `first` and the row's prompt, far from its neighbours', that every service takes."""
    said = hashlib.sha256(f"{first}\0{row['prompt']}".encode()).digest()
    return int.from_bytes(said[:4], "big") >> 1
