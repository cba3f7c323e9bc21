"""How latent diffusion models are trained: noise a latent, ask for the noise, the velocity or the flow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from pictura import schedulers
from pictura.levels import VP

__all__ = ["Training"]


class Training:
    """The training side of `LatentDiffusion`; the autoencoder and the encoders stay as they are."""

    recipe: dict[str, Any]
    scheduler: dict[str, Any]
    body: ClassVar[str]
    parts: dict[str, nn.Module]

    def __init__(self) -> None:
        self.recipe = {"drop_caption": 0.1, "snr_gamma": 0.0}

    @property
    def native(self) -> int:
        raise NotImplementedError

    def scaled(self, z: Tensor) -> Tensor:
        raise NotImplementedError

    def tokens_of(self, prompt: str) -> dict[str, tuple[int, ...]]:
        """The ids of a prompt for each encoder, by the names that `conditioned` takes."""
        raise NotImplementedError

    def conditioned(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Texts as the network takes them; no gradient flows through encoders."""
        raise NotImplementedError

    def predict_rows(self, x: Tensor, time: Tensor, condition: Mapping[str, Tensor]) -> Tensor:
        """The network's answer to x (b, z, h, w) at the times (b,) of its kind."""
        raise NotImplementedError

    def begin_training(self, sample: Mapping[str, Tensor] | None, **recipe: Any) -> dict[str, nn.Module]:
        """The network that denoises. drop_caption: share of captions left out; snr_gamma: see `loss`."""
        self.recipe.update(recipe)
        return {self.body: self.parts[self.body]}

    def prepare(self, examples: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """{"images", "prompts"} each -> image (b, 3, s, s), s the model's own side, cut from the middle;
        size (b, 6), what SDXL is told: the height and width it had, where it was cut, s and s; and the ids
        of its caption and of none."""
        side, found = self.native, []
        sizes = []
        for example in examples:
            image = example["images"]
            image = image if isinstance(image, Image.Image) else Image.fromarray(np.asarray(image))
            scale = side / min(image.size)
            cut = [max(int(round(edge * scale)) - side, 0) // 2 for edge in image.size]
            sizes.append([image.height, image.width, cut[1], cut[0], side, side])
            found.append(
                np.asarray(ImageOps.fit(image.convert("RGB"), (side, side), Image.Resampling.LANCZOS))
            )
        pictures = torch.from_numpy(np.stack(found)).permute(0, 3, 1, 2).float() / 127.5 - 1
        batch = {"image": pictures, "size": torch.tensor(sizes)}
        for name, none in self.tokens_of("").items():
            batch[name] = torch.tensor([self.tokens_of(example["prompts"])[name] for example in examples])
            batch[f"{name}.none"] = torch.tensor([none]).expand(len(examples), -1)
        return batch

    def loss(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> dict[str, Tensor]:
        """Mean squared error of what the network answers (Ho et al. 2020, eq. 14; Esser et al. 2024)."""
        prediction, target = self.predict(batch, rng)
        return {self.body: F.mse_loss(prediction, target)}

    def predict(self, batch: Mapping[str, Tensor], rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """(prediction, target), scaled so that their mean squared difference is the loss.

        With `snr_gamma` above 0 a step counts min(SNR, gamma) / SNR (Hang et al. 2023), or / (SNR + 1) for
        velocities.
        """
        device = batch["image"].device
        b = len(batch["image"])
        with torch.no_grad():
            vae: Any = self.parts["vae"]
            mean, logvar = vae.encode(batch["image"])
            # Random numbers come from the CPU, so that a run is the same on every device.
            sample = torch.randn(mean.shape, generator=rng).to(device)
            z = self.scaled(mean + torch.exp(0.5 * logvar) * sample)
            dropped = (torch.rand(b, generator=rng) < self.recipe["drop_caption"]).to(device)
            given = {name: batch[name] for name in batch if f"{name}.none" in batch}
            texts = {n: torch.where(dropped[:, None], batch[f"{n}.none"], ids) for n, ids in given.items()}
            condition = self.conditioned({**texts, "size": batch["size"]})
        noise = torch.randn(z.shape, generator=rng).to(device)
        process = schedulers.training(self.scheduler)
        if process is None:
            sigma = torch.sigmoid(torch.randn(b, generator=rng)).to(device)
            x = _each(1 - sigma) * z + _each(sigma) * noise
            return self.predict_rows(x, sigma, condition), noise - z
        time = torch.randint(len(process.alphas_cumprod), (b,), generator=rng)
        alpha, sigma = _levels(process, time, device)
        x = alpha * z + sigma * noise
        kind = self.scheduler.get("prediction_type", "epsilon")
        target = noise if kind == "epsilon" else z if kind == "sample" else alpha * noise - sigma * z
        answer = self.predict_rows(x, time.to(device).float(), condition)
        scale = self._weight((alpha / sigma).square(), kind).sqrt()
        return scale * answer, scale * target

    def _weight(self, snr: Tensor, kind: str) -> Tensor:
        gamma = self.recipe["snr_gamma"]
        if not gamma:
            return torch.ones_like(snr)
        counted = snr.clamp(max=gamma)
        if kind == "sample":
            return counted
        return counted / (snr + 1 if kind == "v_prediction" else snr.clamp(min=1e-8))


def _each(values: Tensor) -> Tensor:
    return values[:, None, None, None]


def _levels(process: VP, time: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
    products = torch.tensor(process.alphas_cumprod)[time].to(device)
    return _each(products.sqrt()), _each((1 - products).sqrt())
