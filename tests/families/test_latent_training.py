"""What latent diffusion models are trained on, against the schedulers of diffusers."""

from __future__ import annotations

import copy

import diffusers
import pytest
import torch
from PIL import Image

from pictura.families.latent.training import Training
from pictura.training.preference import DPO, Preferring
from pipelines import family_of, pipeline

DATA = [
    {"images": Image.effect_noise((40 + i, 32), 90).convert("RGB"), "prompts": "a red cat"} for i in range(4)
]


def seen(ours, monkeypatch, **recipe):
    """(prediction, target, x, time, condition) of one batch."""
    asked = []

    def answer(self, x, time, condition):
        asked.append((x, time, condition))
        return torch.zeros_like(x)

    monkeypatch.setattr(type(ours), "predict_rows", answer)
    ours.begin_training(None, **recipe)
    batch = ours.prepare(DATA)
    prediction, target = Training.predict(ours, batch, torch.Generator().manual_seed(3))
    return batch, prediction, target, *asked[0]


def noises(ours, batch):
    """The draws, in their order: latent, dropped captions, noise, times."""
    rng = torch.Generator().manual_seed(3)
    with torch.no_grad():
        mean, logvar = ours.vae.encode(batch["image"])
    sample = torch.randn(mean.shape, generator=rng)
    z = ours.scaled(mean + torch.exp(0.5 * logvar) * sample)
    dropped = torch.rand(len(mean), generator=rng)
    return z, dropped, torch.randn(z.shape, generator=rng), rng


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_diffusion(kind, monkeypatch):
    ours = family_of(pipeline(kind, 1), kind)
    batch, _, target, x, time, _ = seen(ours, monkeypatch)
    z, _, noise, rng = noises(ours, batch)
    theirs = diffusers.DDPMScheduler.from_config({**ours.scheduler, "clip_sample": False})
    times = torch.randint(1000, (4,), generator=rng)
    assert torch.equal(time, times.float())
    torch.testing.assert_close(x, theirs.add_noise(z, noise, times), rtol=1e-5, atol=1e-5)
    wanted = theirs.get_velocity(z, noise, times) if kind == "sd2" else noise
    torch.testing.assert_close(target, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["sd3", "flux-dev"])
def test_flows(kind, monkeypatch):
    ours = family_of(pipeline(kind, 1), kind)
    batch, _, target, x, sigma, condition = seen(ours, monkeypatch)
    z, _, noise, rng = noises(ours, batch)
    wanted = torch.sigmoid(torch.randn(4, generator=rng))  # Esser et al. 2024, section 3.1
    assert torch.equal(sigma, wanted)
    share = wanted[:, None, None, None]
    torch.testing.assert_close(x, (1 - share) * z + share * noise)
    torch.testing.assert_close(target, noise - z)
    assert condition["context"].shape[0] == 4 and condition["pooled"].shape[0] == 4


def test_captions_are_left_out(monkeypatch):
    ours = family_of(pipeline("sd1", 1), "sd1")
    contexts = [seen(ours, monkeypatch, drop_caption=share)[-1]["context"] for share in (0.0, 1.0)]
    with torch.no_grad():
        none = ours.conditioned({"text_encoder": torch.tensor([ours.tokens_of("")["text_encoder"]] * 4)})
    assert torch.equal(contexts[1], none["context"]) and not torch.equal(contexts[0], none["context"])


def test_steps_of_little_noise_count_less(monkeypatch):
    """Hang et al. 2023, eq. 6."""
    ours = family_of(pipeline("sd1", 1), "sd1")
    batch, _, target, _, time, _ = seen(ours, monkeypatch, snr_gamma=5.0)
    *_, noise, _ = noises(ours, batch)
    theirs = diffusers.DDPMScheduler.from_config(ours.scheduler)
    products = theirs.alphas_cumprod[time.long()]
    snr = products / (1 - products)
    weight = (snr.clamp(max=5.0) / snr)[:, None, None, None]
    torch.testing.assert_close(target, weight.sqrt() * noise, rtol=1e-4, atol=1e-5)


def test_pictures_are_cut_from_the_middle():
    ours = family_of(pipeline("sdxl", 1), "sdxl")
    batch = ours.prepare(DATA)
    assert batch["image"].shape == (4, 3, 32, 32) and float(batch["image"].abs().max()) <= 1
    assert batch["size"].tolist() == [[32, 40 + i, 0, (8 + i) // 2, 32, 32] for i in range(4)]


def test_preferences_count_as_diffusers_unet_errs():
    """Wallace et al. 2023, eq. 14, with the networks and the scheduler of diffusers."""
    pipe = pipeline("sd1", 1)
    ours = family_of(pipe, "sd1")
    tuned = Preferring(ours, DPO(beta=2000))
    (unet,) = tuned.begin_training(None, drop_caption=0.0).values()
    rng = torch.Generator().manual_seed(0)
    for value in unet.parameters():
        value.data += 0.003 * torch.randn(value.shape, generator=rng)
    moved = copy.deepcopy(pipe.unet)
    moved.load_state_dict(unet.state_dict())
    losers = [Image.effect_noise((32, 36 + i), 30).convert("RGB") for i in range(4)]
    pairs = [{**row, "losers": loser} for row, loser in zip(DATA, losers, strict=True)]
    (loss,) = tuned.loss(tuned.prepare(pairs), torch.Generator().manual_seed(3)).values()

    scheduler = diffusers.DDPMScheduler.from_config({**ours.scheduler, "clip_sample": False})
    errors = {}
    for side in ("images", "losers"):
        batch = ours.prepare([{"images": pair[side], "prompts": pair["prompts"]} for pair in pairs])
        z, _, noise, rng = noises(ours, batch)
        times = torch.randint(1000, (4,), generator=rng)
        with torch.no_grad():
            text = pipe.text_encoder(batch["text_encoder"])[0]
            for unet in (moved, pipe.unet):
                answer = unet(scheduler.add_noise(z, noise, times), times, text).sample
                errors[side, unet is moved] = ((answer - noise) ** 2).mean((1, 2, 3))
    gained = {side: errors[side, True] - errors[side, False] for side in ("images", "losers")}
    inside = -1000 * (gained["images"] - gained["losers"])
    assert inside.abs().max() > 0.01
    # Beta multiplies a difference of errors, and with it what rounding leaves of them.
    torch.testing.assert_close(loss.detach(), torch.log1p(torch.exp(-inside)).mean(), rtol=1e-3, atol=0)
