"""`scenes`: Pictura's own small flow model, a caption to a 128 px picture."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura import samplers
from pictura.datasets.scenes.grammar import Scene
from pictura.datasets.scenes.render import NONE, WHOLE, labels
from pictura.datasets.scenes.words import LENGTH, ROWS, word_list
from pictura.engine import Ask, Program, plain, translate, watched
from pictura.errors import ParameterError, PresetError
from pictura.families import Option
from pictura.guidance import cfg, limited, rescaled
from pictura.levels import Flow, Level
from pictura.nn.rows import by_rows
from pictura.request import Request
from pictura.samplers import schedules

from .model import Denoiser, Labels, TextEncoder

ARCHITECTURE: dict[str, Any] = {
    "side": 128, "patch": 16, "coefficients": 512, "width": 256, "heads": 4, "hidden": 704,
    "depth": 8, "text_depth": 3, "taught": [],
}  # fmt: skip
PLACES = {"centre": 1, "left": 2, "right": 3, "above": 4, "below": 5, "two": 6, "three": 7, "four": 8}
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}


DEFAULTS: dict[str, Any] = {
    "num_steps": 12, "guidance_scale": 1.0, "sampler": "euler", "schedule": "shift:8", "size": (128, 128),
}  # fmt: skip
OPTIONS = (
    Option(name="eta", type=float, default=None, help="share of fresh noise a step, if the sampler has it"),
    Option(name="guidance_rescale", type=float, default=0.0, help="0 plain to 1: keep the unguided contrast"),
    Option(name="guidance_low", type=float, default=0.0, help="no guidance at or below this noise / signal"),
    Option(name="guidance_high", type=float, default=None, help="no guidance above this noise / signal"),
)


class Scenes:
    """See the contract in `families`. Trained by `recipes/scenes.toml`."""

    name: ClassVar[str] = "scenes"
    rows: ClassVar[int] = 32  # rows a pass: with whole rows to threads, bits do not depend on it
    options: ClassVar[Mapping[str, Option]] = {option.name: option for option in OPTIONS}
    parameters: ClassVar[frozenset[str]] = frozenset({*DEFAULTS, "negative_prompt", *options})

    def __init__(self, architecture: Mapping[str, Any]) -> None:
        self.architecture = a = {**ARCHITECTURE, **architecture}
        self.words = word_list(a["taught"])
        common = {"width": a["width"], "heads": a["heads"], "hidden": a["hidden"]}
        self.text = TextEncoder(ROWS, LENGTH, depth=a["text_depth"], **common)
        self.denoiser = Denoiser(a["side"], a["patch"], a["coefficients"], depth=a["depth"], **common)
        self.labels: Labels | None = None
        self.recipe: dict[str, Any] = {
            "times": [[0.75, -1.8, 1.2], [0.25, 0.5, 1.0]],
            "drop_caption": 0.1,
            "label_weight": 0.2,
            "dtype": "float32",
        }

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Scenes:
        """`config` may leave out what is as in `ARCHITECTURE`; PresetError for a key that is not there."""
        for key in config:
            if key not in ARCHITECTURE:
                raise PresetError(
                    f"scenes has no architecture value {key!r}; it has {', '.join(ARCHITECTURE)}"
                )
        return cls(config)

    def config(self) -> dict[str, Any]:
        return dict(self.architecture)

    def defaults(self) -> dict[str, Any]:
        return dict(DEFAULTS)

    # Making a picture

    def check(self, request: Request) -> None:
        side = self.architecture["side"]
        if request.size not in (None, (side, side)):
            width, height = request.size
            raise ParameterError(
                f"size {width}x{height} is not possible: scenes draws {side}x{side} pictures",
                parameter="size",
            )
        if request.negative_prompt and request.guidance_scale in (None, 1.0):
            raise ParameterError(
                "negative_prompt does nothing at guidance_scale 1, the default of scenes; "
                "give a guidance_scale above 1, such as 2, with it", parameter="negative_prompt",
            )  # fmt: skip
        if request.schedule is not None:
            schedules.named(request.schedule)
        if request.sampler is not None:
            samplers.check_options(request.sampler, self._sampler_options(request))

    def notes(self, request: Request) -> tuple[str, ...]:
        return self.words.notes(request.prompt)

    def run(self, request: Request, note: Callable[[Level, Tensor], None]) -> Program:
        """Flow matching from noise to picture, with classifier-free guidance."""
        assert (
            request.seed is not None and request.num_steps is not None and request.guidance_scale is not None
        )
        assert request.sampler is not None and request.schedule is not None  # the task completed the request
        side, options = self.architecture["side"], request.options
        rng = torch.Generator().manual_seed(request.seed)

        def noise() -> Tensor:
            return torch.randn(1, 3, side, side, generator=rng)

        def ask(x: Tensor, level: Level, text: Tensor) -> Ask:
            return Ask("denoiser", {"x": x, "t": torch.tensor([level.alpha]), "text": text})

        text, null = yield self._ask_text(request.prompt), self._ask_text(request.negative_prompt or "")
        denoise, scale = plain(ask, text), request.guidance_scale
        if scale != 1.0:
            phi = options.get("guidance_rescale", 0.0)
            guided = rescaled(ask, text, null, scale, phi) if phi else cfg(ask, text, null, scale)
            low, high = options.get("guidance_low", 0.0), options.get("guidance_high") or math.inf
            denoise = limited(guided, denoise, low, high)
        levels = schedules.named(request.schedule)(Flow(), request.num_steps)
        sampler = samplers.load(request.sampler)
        solver = sampler(noise(), levels, noise, **self._sampler_options(request))
        picture = yield from translate(solver, watched(denoise, note))
        return picture.clamp(-1, 1)

    def evaluate(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        """ "text": ids (b, 8) -> (b, 8, d + 1), the last channel 1 where there is a word.
        "denoiser": x (b, 3, h, w), t (b,) the picture's share, text -> clean picture (b, 3, h, w)."""
        return by_rows(self._read if net == "text" else self._denoise, **inputs)

    def _read(self, ids: Tensor) -> Tensor:
        text = self.text(ids, self.text.words.dtype)
        return torch.cat([text, (ids != 0).to(text.dtype)[..., None]], -1)

    def _denoise(self, x: Tensor, t: Tensor, text: Tensor) -> Tensor:
        d = self.denoiser
        z = (d.encode(x.float()) - t.float()[:, None, None] * d.mean.float()) @ d.basis.float()
        clean, _ = d(z, t, text[..., :-1], text[..., -1] > 0, d.positions.dtype)
        return d.decode(clean)

    def _ask_text(self, prompt: str) -> Ask:
        ids = tuple(self.words.padded(self.words.encode(prompt)))
        return Ask("text", {"ids": torch.tensor([ids])}, memo=ids)

    def _sampler_options(self, request: Request) -> dict[str, float]:
        return {"eta": request.options["eta"]} if "eta" in request.options else {}

    # Training

    def begin_training(self, sample: Mapping[str, Tensor] | None, **recipe: Any) -> dict[str, nn.Module]:
        """Networks to train. `sample`, a prepared batch of some hundred pictures, sets the PCA; None keeps
        it (fine-tuning)."""
        self.recipe.update(recipe)
        if self.labels is None:
            self.labels = Labels(self.architecture["width"], NONE + 1, WHOLE + 1, len(PLACES) + 1)
        if sample is not None:
            patches = self.denoiser.encode(sample["image"]).flatten(0, 1)
            mean = patches.mean(0)
            covariance = (patches - mean).T @ (patches - mean) / len(patches)
            variance, basis = torch.linalg.eigh(covariance.double())  # ascending
            k = self.architecture["coefficients"]
            self.denoiser.mean.copy_(mean)
            self.denoiser.basis.copy_(basis.flip(1)[:, :k])
            self.denoiser.variance.copy_(variance.flip(0)[:k].clamp_min(1e-5))
        return {**self.networks(), "labels": self.labels}

    def adapt(self, prompts: Iterable[str]) -> tuple[str, ...]:
        """Give each unknown word of `prompts` one of the spare rows of the embedding, for training to fill.
        Returns the new words; ParameterError when there are more than rows left."""
        new = dict.fromkeys(word for prompt in prompts for word in self.words.encode(prompt).unknown)
        taught = [*self.architecture["taught"], *new]
        words = word_list(taught)
        if len(words.entries) > ROWS:
            room = ROWS - len(self.words.entries)
            raise ParameterError(
                f"the captions have {len(new)} words that scenes does not know, and it has room for {room}; "
                "use fewer new words",
                parameter="prompts",
            )
        self.architecture["taught"], self.words = taught, words
        return tuple(new)

    def networks(self) -> dict[str, nn.Module]:
        return {"text": self.text, "denoiser": self.denoiser}

    def prepare(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """{"images", "prompts"[, "scene"]} each -> image (b, 3, 128, 128), tokens (b, 8) and, if every
        example has its `Scene`, object and piece (b, 64) and place (b, 8; -1 = no target)."""
        pictures = np.stack([np.asarray(e["images"]) for e in examples])
        image = torch.from_numpy(pictures).permute(0, 3, 1, 2).float() / 127.5 - 1
        tokens = [self.words.encode(e["prompts"]) for e in examples]
        batch = {"image": image, "tokens": torch.tensor([self.words.padded(t) for t in tokens])}
        scenes = [e.get("scene") for e in examples]
        if all(isinstance(scene, Scene) for scene in scenes):
            maps = [labels(scene) for scene in scenes]  # type: ignore[arg-type]
            batch["object"] = torch.from_numpy(np.stack([m[0] for m in maps]))
            batch["piece"] = torch.from_numpy(np.stack([m[1] for m in maps]))
            places = torch.zeros(len(examples), LENGTH, dtype=torch.int64)
            for row, scene, token in zip(places, scenes, tokens, strict=True):
                where = _places(scene)  # type: ignore[arg-type]
                for i, noun in enumerate(token.nouns):
                    row[i] = where[noun] if 0 <= noun < len(where) else 0
            batch["place"] = places.masked_fill(batch["tokens"] == 0, -1)
        return batch

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        """Velocity loss of flow matching with a prediction of the clean picture (Li and He 2025), in PCA
        coefficients, plus label losses where the batch has labels."""
        prediction, target, middle, text, dropped = self._predicted(batch, rng)
        flow = (prediction - target).square().mean()
        losses = {"flow": flow}
        if "object" in batch and self.labels is not None:
            obj, piece, place = self.labels(middle, text)
            losses["object"] = F.cross_entropy(obj.flatten(0, 1), batch["object"].flatten())
            losses["piece"] = F.cross_entropy(piece.flatten(0, 1), batch["piece"].flatten())
            known = batch["place"].masked_fill(dropped[:, None], -1)
            losses["place"] = F.cross_entropy(place.flatten(0, 1), known.flatten(), ignore_index=-1)
        labelled = sum((loss for name, loss in losses.items() if name != "flow"), flow.new_zeros(()))
        self.logs = {name: loss.detach() for name, loss in losses.items()}
        return {"text+denoiser+labels": flow + self.recipe["label_weight"] * labelled}

    def predict(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """(prediction, target), scaled so that their mean squared difference is the velocity loss."""
        prediction, target, *_ = self._predicted(batch, rng)
        return prediction, target

    def _predicted(
        self, batch: Mapping[str, Tensor], rng: torch.Generator
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Noise the pictures, drop some captions, denoise: prediction and target, the trunk's middle tokens,
        the text's, and which captions were dropped (b,)."""
        recipe, net = self.recipe, self.denoiser
        b = len(batch["image"])
        dtype = getattr(torch, recipe["dtype"])
        x = (net.encode(batch["image"]) - net.mean) @ net.basis
        # Random numbers come from the CPU, so that a run is the same on every device.
        shares = torch.tensor([share for share, _, _ in recipe["times"]])
        which = torch.multinomial(shares, b, replacement=True, generator=rng)
        centre = torch.tensor([[m, s] for _, m, s in recipe["times"]])[which]
        t = torch.sigmoid(centre[:, 0] + centre[:, 1] * torch.randn(b, generator=rng)).to(x.device)
        noise = torch.randn(x.shape, generator=rng).to(x.device)
        dropped = (torch.rand(b, generator=rng) < recipe["drop_caption"]).to(x.device)
        null = torch.tensor(self.words.padded(self.words.encode("")), device=x.device)
        tokens = torch.where(dropped[:, None], null, batch["tokens"])

        text = self.text(tokens, dtype)
        z = t[:, None, None] * x + (1 - t[:, None, None]) * noise
        clean, middle = net(z, t, text, tokens != 0, dtype)
        # The velocity is (x - z) / (1 - t); pixels beyond the coefficients count as predicted without error.
        share = x[0].numel() / batch["image"][0].numel()
        scale = share**0.5 / (1 - t[:, None, None]).clamp_min(0.05)
        return scale * clean, scale * x, middle, text, dropped


def _places(scene: Scene) -> tuple[int, ...]:
    """Place class of each name in the caption."""
    if scene.kind == "single":
        return (PLACES["centre"],)
    if scene.kind == "count":
        return (PLACES[{2: "two", 3: "three", 4: "four"}[scene.number]],)
    return PLACES[scene.relation], PLACES[OPPOSITE[scene.relation]]


FAMILY = Scenes
