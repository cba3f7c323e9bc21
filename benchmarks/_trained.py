"""Two small latent diffusion models that a benchmark trains itself, in some twenty minutes on two cores.

Pictures are scenes of the library's own at 64 px, with some of their objects and the background always told.
One autoencoder serves both: a UNet that predicts velocities, as Stable Diffusion 2's, and an MMDiT, as Stable
Diffusion 3.5's. Their CLIP encoders are trained along with them.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

import pictura
from pictura import families, schedulers
from pictura.datasets.scenes.grammar import Scene, caption, sample
from pictura.datasets.scenes.render import render
from pictura.formats import networks, preset
from pictura.nn.vae import AutoencoderKL
from pictura.text import tokenizer_files

SIDE = 64
KEPT = tuple(range(0, 240, 20))  # objects
TEXT = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
        "projection_dim": 64}  # fmt: skip
VAE = {"block_out_channels": [32, 32, 64], "down_block_types": ["DownEncoderBlock2D"] * 3,
       "up_block_types": ["UpDecoderBlock2D"] * 3, "layers_per_block": 1, "latent_channels": 4,
       "norm_num_groups": 8}  # fmt: skip
UNET = {"sample_size": SIDE // 4, "block_out_channels": [64, 96, 128], "layers_per_block": 2,
        "down_block_types": ["CrossAttnDownBlock2D", "CrossAttnDownBlock2D", "DownBlock2D"],
        "up_block_types": ["UpBlock2D", "CrossAttnUpBlock2D", "CrossAttnUpBlock2D"],
        "cross_attention_dim": 64, "attention_head_dim": 4, "norm_num_groups": 8}  # fmt: skip
MMDIT = {"sample_size": SIDE // 4, "patch_size": 2, "in_channels": 4, "out_channels": 4, "num_layers": 12,
         "num_attention_heads": 4, "attention_head_dim": 32, "caption_projection_dim": 128,
         "joint_attention_dim": 96, "pooled_projection_dim": 96, "pos_embed_max_size": 24,
         "qk_norm": "rms_norm"}  # fmt: skip
FAMILIES: dict[str, dict[str, Any]] = {
    "stable_diffusion": {
        "unet": UNET, "vae": VAE, "text_encoder": TEXT,
        "scheduler": {"_class_name": "DDIMScheduler", "beta_schedule": "scaled_linear", "beta_start": 0.00085,
                      "beta_end": 0.012, "clip_sample": False, "set_alpha_to_one": False, "steps_offset": 1,
                      "prediction_type": "v_prediction", "timestep_spacing": "trailing"},
    },
    "stable_diffusion_3": {
        "transformer": MMDIT, "vae": VAE, "text_encoder": TEXT,
        "text_encoder_2": {**TEXT, "hidden_size": 32, "intermediate_size": 64, "projection_dim": 32},
        "scheduler": {"_class_name": "FlowMatchEulerDiscreteScheduler", "shift": 2.0},
    },
}  # fmt: skip
DEFAULTS = {"guidance_scale": 3.0}


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Pictures to learn from, steps of the autoencoder and of each network, pictures a step."""

    pictures: int = 6144
    autoencoder: int = 900
    networks: Mapping[str, int]
    rows: int = 16


FULL = Plan(networks={"stable_diffusion": 1450, "stable_diffusion_3": 900})
QUICK = Plan(pictures=8, autoencoder=2, networks=dict.fromkeys(FULL.networks, 2), rows=4)


def scene(rng: random.Random) -> Scene:
    """A scene of the kept objects that tells its background."""
    while True:
        drawn = sample(rng)
        objects = tuple(KEPT[o % len(KEPT)] for o in drawn.objects)
        if len(set(objects)) == len(objects):
            return replace(drawn, objects=objects, told=True)


def prompts(count: int) -> list[str]:
    """Captions, with another generator than those that are learned from."""
    rng = random.Random("savings: prompts")
    return [caption(scene(rng)) for _ in range(count)]


def models(place: Path, quick: bool) -> dict[str, Path]:
    """The preset folders by family; those that are not in `place` yet are trained first, with the
    autoencoder of one that is."""
    wanted, plan = {name: place / name for name in FAMILIES}, QUICK if quick else FULL
    missing = [name for name, folder in wanted.items() if not (folder / preset.CONFIG).exists()]
    if missing:
        rng = random.Random("savings")
        scenes = [scene(rng) for _ in range(plan.pictures)]
        pictures = torch.from_numpy(np.stack([small(one) for one in scenes])).permute(0, 3, 1, 2)
        vae, history = autoencoder(
            next((f for n, f in wanted.items() if n not in missing), None), pictures, plan
        )
        with torch.no_grad():
            z = torch.cat([vae.encode(part / 127.5 - 1)[0] for part in pictures.float().split(64)])
        captions = [caption(one) for one in scenes]
        for name in missing:
            save(name, wanted[name], vae, z, captions, plan, history)
    return wanted


def small(one: Scene) -> Any:
    return np.asarray(Image.fromarray(render(one)).resize((SIDE, SIDE), Image.Resampling.LANCZOS))


def autoencoder(folder: Path | None, pictures: Tensor, plan: Plan) -> tuple[Any, dict[str, Any]]:
    """The one of a preset that is there, or a new one; and how it was trained."""
    if folder is not None:
        known = pictura.TextToImage.from_preset(folder, dtype="float32", device="cpu")
        return known.backbone["vae"], dict(preset.read(folder).provenance["autoencoder"])
    torch.manual_seed(0)
    vae = AutoencoderKL(VAE)
    return vae, learned("autoencoder", vae, plan.autoencoder, autoencoding(vae, pictures, plan.rows), 2e-3)


def save(
    name: str, folder: Path, vae: Any, z: Tensor, captions: list[str], plan: Plan, history: Mapping[str, Any]
) -> None:
    """Train one family's network and its encoders on the latents z, and write its preset."""
    size = float(z.square().mean().sqrt())
    scaling = {"scaling_factor": round(1 / size, 5)}
    if name == "stable_diffusion_3":
        scaling = {"scaling_factor": round(1 / float(z.std()), 5), "shift_factor": round(float(z.mean()), 5)}
    config = {**FAMILIES[name], "vae": {**VAE, **scaling}}
    torch.manual_seed(1)
    family: Any = families.load(name).from_config(config)
    family.parts["vae"].load_state_dict(vae.state_dict())
    encoders = [part for part in family.parts if part.startswith("text_encoder")]
    words = tokenizer_files.clip()
    family.assets.update({part.replace("text_encoder", "tokenizer"): words for part in encoders})
    body = nn.ModuleDict({part: family.parts[part] for part in (family.body, *encoders)})
    begin(family.parts[family.body])
    losses = denoising(family, family.scaled(z), captions, plan.rows)
    told = {"autoencoder": history, "network": learned(name, body, plan.networks[name], losses, 1e-3)}
    about = preset.Config(family=name, architecture=config, defaults=DEFAULTS, provenance=told)
    tensors = {key: tensor.detach() for key, tensor in networks.tensors(family.networks()).items()}
    files = {f"{key}.json": content for key, content in family.assets.items()}
    preset.write(folder, about, tensors, "Trained by benchmarks/_trained.py.\n", files=files)


def begin(body: nn.Module) -> None:
    """Start from blocks that change nothing (Peebles and Xie 2023, section 3.2)."""
    for name, parameter in body.named_parameters():
        if ".linear." in name or name.startswith(("norm_out.", "proj_out.", "conv_out.")):
            nn.init.zeros_(parameter)


def learned(
    name: str, body: nn.Module, steps: int, losses: Callable[[], Iterator[Tensor]], rate: float
) -> dict[str, float]:
    """Steps, seconds, and the mean loss of the first and the last twentieth of the steps."""
    body.requires_grad_(True).train()
    optimiser = torch.optim.AdamW(body.parameters(), rate, betas=(0.9, 0.99), weight_decay=0.01)
    plan = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / 50, 1.02 - step / max(steps, 1))
    )
    found, started = [], time.perf_counter()
    for step, loss in zip(range(steps), losses(), strict=False):
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(body.parameters(), 1.0)
        optimiser.step()
        plan.step()
        found.append(float(loss.detach()))
        if step % 50 == 49:
            print(f"{name} {step + 1}/{steps} {np.mean(found[-50:]):.4f} "
                  f"{time.perf_counter() - started:.0f} s", flush=True)  # fmt: skip
    body.requires_grad_(False).eval()
    part = math.ceil(steps / 20)
    return {
        "steps": steps, "seconds": round(time.perf_counter() - started, 1),
        "parameters": sum(parameter.numel() for parameter in body.parameters()),
        "first_loss": round(float(np.mean(found[:part])), 4),
        "last_loss": round(float(np.mean(found[-part:])), 4),
    }  # fmt: skip


def autoencoding(vae: Any, pictures: Tensor, rows: int) -> Callable[[], Iterator[Tensor]]:
    """Squared and absolute error, and a little of the divergence from a normal distribution."""
    rng = torch.Generator().manual_seed(2)

    def losses() -> Iterator[Tensor]:
        while True:
            x = pictures[torch.randint(len(pictures), (rows,), generator=rng)].float() / 127.5 - 1
            mean, logvar = vae.encode(x)
            off = vae.decode(mean + torch.exp(0.5 * logvar) * torch.randn(mean.shape, generator=rng)) - x
            divergence = (mean.square() + logvar.exp() - 1 - logvar).mean()
            yield off.square().mean() + 0.1 * off.abs().mean() + 1e-4 * divergence

    return losses


def denoising(family: Any, z: Tensor, captions: list[str], rows: int) -> Callable[[], Iterator[Tensor]]:
    """The losses of `pictura.families.latent.training`, on latents known before; texts learn as well."""
    rng, process = torch.Generator().manual_seed(3), schedulers.training(family.scheduler)
    read = [family.tokens_of(one) for one in ["", *captions]]
    ids = {name: torch.tensor([one[name] for one in read]) for name in read[0]}

    def losses() -> Iterator[Tensor]:
        while True:
            which = torch.randint(len(captions), (rows,), generator=rng)
            kept = torch.rand(rows, generator=rng) >= 0.1
            texts = {name: every[torch.where(kept, which + 1, 0)] for name, every in ids.items()}
            condition = family.conditioned(texts)
            condition["context"] = condition["context"][:, : LENGTH[family.name]]
            clean, noise = z[which], torch.randn(rows, *z.shape[1:], generator=rng)
            if process is None:
                time = torch.sigmoid(torch.randn(rows, generator=rng))
                sigma = time[:, None, None, None]
                x, target = (1 - sigma) * clean + sigma * noise, noise - clean
            else:
                steps = torch.randint(len(process.alphas_cumprod), (rows,), generator=rng)
                product = torch.tensor(process.alphas_cumprod)[steps].float()[:, None, None, None]
                alpha, sigma, time = product.sqrt(), (1 - product).sqrt(), steps.float()
                x, target = alpha * clean + sigma * noise, alpha * noise - sigma * clean
            yield F.mse_loss(family.predict_rows(x, time, condition), target)

    return losses


LENGTH = {"stable_diffusion": 77, "stable_diffusion_3": 78}  # rows of text; the one of T5 is zeros
