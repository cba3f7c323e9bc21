"""`gan_cls`: a caption and noise to a 64 px picture in one step (Reed et al. 2016)."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn
from torch.func import functional_call

from pictura.datasets.scenes.grammar import Scene
from pictura.datasets.scenes.render import WHOLE, labels
from pictura.datasets.scenes.words import LENGTH, ROWS, word_list
from pictura.engine import Ask, Program
from pictura.errors import ParameterError, PresetError, TrainingError, shown
from pictura.families import Option
from pictura.levels import Level
from pictura.nn.rows import by_rows
from pictura.request import Request

from .losses import fooling, matching_aware, steepness
from .model import GRID, Architecture, Discriminator, Generator

if TYPE_CHECKING:
    from pictura.families import Batch, Note

RECIPE: Mapping[str, float | str] = {
    "dtype": "float32",  # of activations; weights and losses stay float32
    "adversarial": 0.02,
    "interpolation": 1.0,  # weight of GAN-INT within the generator's adversarial term
    "mixed_share": 0.25,  # share of the batch that is drawn a second time, from mixed captions
    "steepness": 5e-3,  # this and the three below are not in the paper; 0 switches each off
    "reconstruction": 1.0,
    "candidates": 8,
    "labels": 0.2,  # for batches that have them
}
PARTS = WHOLE + 1  # pieces of an object and "none"
SHAKE = 0.05  # standard deviation of the noise for `steepness`, pictures in [-1, 1]


class GanCls:
    """See the contract in `families`. Trained by `recipes/gan_cls.toml`."""

    name: ClassVar[str] = "gan_cls"
    rows: ClassVar[int] = 32  # rows a pass: with whole rows to threads, bits do not depend on it
    parameters: ClassVar[frozenset[str]] = frozenset({"size", "truncation"})
    options: ClassVar[Mapping[str, Option]] = {
        "truncation": Option(
            name="truncation", type=float, default=1.0, help="scale of the noise, 0..2: more varies more"
        )
    }

    def __init__(self, architecture: Architecture) -> None:
        self.architecture = architecture
        self.words = word_list()
        self.generator = Generator(architecture)
        self.discriminator = Discriminator(architecture)
        self.recipe: dict[str, Any] = dict(RECIPE)
        self.logs: dict[str, Tensor] = {}

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> GanCls:
        """`config` may leave out what is as in `Architecture`; PresetError for what cannot be built."""
        known = asdict(Architecture())
        for key, value in config.items():
            if key not in known:
                raise PresetError(
                    f"gan_cls has no architecture value {shown(key)}; it has {', '.join(known)}"
                )
            length = len(known[key]) if isinstance(known[key], tuple) else 0
            numbers = value if length and isinstance(value, list | tuple) else [value]
            if len(numbers) != (length or 1) or not all(type(n) is int and 0 < n <= 4096 for n in numbers):
                wanted = f"{length} whole numbers" if length else "a whole number"
                raise PresetError(f"gan_cls needs {wanted} of 1..4096 for {key}, not {shown(value)}")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config.items()}
        a = Architecture(**values)
        if a.width % a.heads or a.sentence % a.heads:
            raise PresetError(f"gan_cls needs a width and a sentence that {a.heads} heads divide")
        if a.words < ROWS or a.length < LENGTH:
            raise PresetError(f"gan_cls needs at least {ROWS} words and a length of {LENGTH}")
        return cls(a)

    def config(self) -> dict[str, Any]:
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self.architecture).items()}

    def defaults(self) -> dict[str, Any]:
        return {"size": (self.architecture.size, self.architecture.size)}

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator, "discriminator": self.discriminator}

    # Drawing

    def check(self, request: Request) -> None:
        side = self.architecture.size
        if request.size is not None and request.size != (side, side):
            width, height = request.size
            raise ParameterError(
                f"size {width}x{height} is not possible: gan_cls draws {side}x{side} pictures",
                parameter="size",
            )
        scale = request.options.get("truncation", 1.0)
        if isinstance(scale, bool) or not isinstance(scale, int | float) or not 0 <= scale <= 2:
            raise ParameterError(
                f"truncation {shown(scale)} is not possible; give a number of 0..2", parameter="truncation"
            )

    def notes(self, request: Request) -> tuple[str, ...]:
        return self.words.notes(request.prompt)

    def run(self, request: Request, note: Note) -> Program:
        """One question: noise and words in, the picture out."""
        assert request.seed is not None  # the task completed the request
        rng = torch.Generator("cpu").manual_seed(request.seed)
        noise = torch.randn(1, self.architecture.latent, generator=rng)
        ids = torch.tensor([self.words.padded(self.words.encode(request.prompt))])
        scale = float(request.options.get("truncation", 1.0))
        (image,) = yield (Ask("generator", {"z": scale * noise, "ids": ids}),)
        note(Level(1.0, 0.0), image)
        return image

    def evaluate(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        """generator: z (b, latent), ids (b, n) -> pictures (b, 3, 64, 64). discriminator: images (same), ids
        -> (b,) logits of "real, and told by these words"."""
        if net == "generator":
            return by_rows(self.generator, z=inputs["z"], ids=inputs["ids"])
        return by_rows(self._matches, images=inputs["images"], ids=inputs["ids"])

    def _matches(self, images: Tensor, ids: Tensor) -> Tensor:
        sentence = self.discriminator.text(ids)[1]
        logits: Tensor = self.discriminator(images.to(sentence.dtype), sentence)
        return logits

    # Training

    def begin_training(self, sample: Batch | None, **recipe: Any) -> dict[str, nn.Module]:
        """Networks to train; `recipe` replaces values of `RECIPE`. `sample` is not needed here."""
        for key in recipe:
            if key not in RECIPE:
                raise TrainingError(f"gan_cls has no loss option {key!r}; it has {', '.join(RECIPE)}")
        self.recipe.update(recipe)
        return self.networks()

    def prepare(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """{"images", "prompts"[, "scene"]} each -> image (b, 3, 64, 64), ids (b, 8) and, if every example has
        its `Scene`, kind and part (b, 64) of every 8x8 patch."""
        side = self.architecture.size
        pictures = np.stack([_small(e["images"], side) for e in examples])
        image = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        ids = torch.tensor([self.words.padded(self.words.encode(e["prompts"])) for e in examples])
        batch = {"image": image.contiguous(memory_format=torch.channels_last), "ids": ids}
        scenes = [e.get("scene") for e in examples]
        if all(isinstance(scene, Scene) for scene in scenes):
            maps = [labels(scene) for scene in scenes]  # type: ignore[arg-type]
            batch["kind"] = torch.from_numpy(np.stack([kind for kind, _ in maps]))
            batch["part"] = torch.from_numpy(np.stack([part for _, part in maps]))
        return batch

    def loss(self, batch: Batch, rng: torch.Generator) -> dict[str, Tensor]:
        """Algorithm 1 of the paper with both players stepped from the same state. No gradient of one's loss
        reaches the other."""
        r, d = self.recipe, self.discriminator
        x, ids = batch["image"], batch["ids"]
        dtype = getattr(torch, r["dtype"])
        fake, mixed, partner, extra = self._draw(batch, rng, dtype)

        frozen = {name: p.detach() for name, p in d.named_parameters()}
        with torch.no_grad():
            sentence = d.text(ids, dtype)[1]
        n = len(mixed)
        told = torch.cat((sentence, (sentence[:n] + sentence[partner]) / 2))
        s = functional_call(d, frozen, (torch.cat((fake, mixed)).to(dtype), told))
        fool, fool_mixed = fooling(s[: len(ids)]), fooling(s[len(ids) :]) if n else s.new_zeros(())
        adversarial = fool + r["interpolation"] * fool_mixed
        generator = r["adversarial"] * adversarial + r["reconstruction"] * extra["reconstruction"]
        generator = generator + r["labels"] * extra["labels"]

        sentence = d.text(ids, dtype)[1]
        offset = int(torch.randint(1, max(2, len(ids)), (), generator=rng))
        mismatched = (ids.roll(offset, 0) != ids).any(1).float()
        early, late = d.look(x.to(dtype))
        real, wrong = d.judge(late, sentence), d.judge(late, sentence.roll(offset, 0))
        made = d(fake.detach().to(dtype), sentence)
        classic = matching_aware(real, wrong, made, mismatched)
        discriminator = classic + r["labels"] * _label_loss(d.labels(early), batch)
        steep = classic.new_zeros(())
        if r["steepness"]:
            noise = SHAKE * torch.randn(x.shape, generator=rng)
            steep = steepness(real, d((x + noise).to(dtype), sentence), SHAKE)
            discriminator = discriminator + r["steepness"] * steep

        self.logs = {
            **{name: value.detach() for name, value in extra.items()},
            "fool": fool.detach(),
            "fool_mixed": fool_mixed.detach(),
            "discriminator": classic.detach(),
            "steepness": steep.detach(),
            "told_apart": (real > wrong).float().mean(),
        }
        return {"generator": generator, "discriminator": discriminator}

    def _draw(
        self, batch: Batch, rng: torch.Generator, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]:
        """Pictures of the batch's captions, pictures of mixed captions, the rows these were mixed with, and
        the generator's terms that are not in the paper."""
        r, g = self.recipe, self.generator
        x, ids = batch["image"], batch["ids"]
        b, mask = len(ids), ids != 0
        words, sentence = g.text(ids, dtype)
        blank = g.draw_map(words, mask)
        count = int(r["candidates"]) if r["reconstruction"] else 1
        z = torch.randn(count, b, self.architecture.latent, generator=rng)
        goal = F.avg_pool2d(x, x.shape[-1] // GRID).flatten(2).transpose(1, 2)  # (b, 64, 3)
        drawn = g.add_noise(blank, sentence, self._nearest(blank.detach(), sentence.detach(), z, goal))

        n = int(r["mixed_share"] * b) if r["interpolation"] and r["adversarial"] else 0
        partner = (torch.arange(n) + b // 2) % b
        clean = words * mask[..., None]
        between = g.draw_map((clean[:n] + clean[partner]) / 2, mask[:n] | mask[partner])
        other = torch.randn(n, self.architecture.latent, generator=rng)
        between = g.add_noise(between, (sentence[:n] + sentence[partner]) / 2, other)

        pictures = g.paint(torch.cat((drawn, between)))
        fake, mixed = pictures[:b], pictures[b:]
        far = (fake - x).abs().mean() + (g.preview(drawn) - goal).abs().mean()
        return fake, mixed, partner, {"reconstruction": far, "labels": _label_loss(g.labels(blank), batch)}

    @torch.no_grad()
    def _nearest(self, blank: Tensor, sentence: Tensor, z: Tensor, goal: Tensor) -> Tensor:
        """Of the candidates z (k, b, latent) each row's whose preview is nearest to `goal`: what a caption
        leaves open is left to the noise (implicit maximum likelihood, Li and Malik 2018)."""
        if len(z) == 1:
            return z[0]
        g = self.generator
        far = [(g.preview(g.add_noise(blank, sentence, row)) - goal).abs().mean((1, 2)) for row in z]
        return z[torch.stack(far).argmin(0), torch.arange(z.shape[1])]


def _label_loss(logits: Tensor, batch: Batch) -> Tensor:
    """Cross-entropy of object and piece under every patch; 0 for a batch without labels."""
    if "kind" not in batch:
        return logits.new_zeros(())
    flat = logits.float().flatten(0, 1)
    kind, part = flat[:, :-PARTS], flat[:, -PARTS:]
    return F.cross_entropy(kind, batch["kind"].flatten()) + F.cross_entropy(part, batch["part"].flatten())


def _small(picture: Any, side: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(side, side, 3) uint8: the picture cut to a square and reduced by area."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(np.asarray(picture, np.uint8))
    image = image.convert("RGB")
    w, h = image.size
    edge = min(w, h)
    left, top = (w - edge) // 2, (h - edge) // 2
    box = (left, top, left + edge, top + edge)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX, box))


FAMILY = GanCls
