"""Compare Pictura with diffusers on weights of yours: python scripts/check_checkpoint.py PATH [--steps 8]

PATH is a folder in diffusers' layout of Stable Diffusion 1.x, 2.x, XL, 3, 3.5 or FLUX.1. The prompt's
embedding, one evaluation of the network, the autoencoder both ways and a whole picture are made by diffusers,
then by Pictura, in float32 with the same seed; one model is in memory at a time. Prints the largest relative
difference of each and exits with 1 where one is above what float32 explains.
"""

from __future__ import annotations

import argparse
import gc
import json
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pictura import TextToImage
from pictura.engine import Ask, solve
from pictura.levels import Level
from pictura.request import Request

PROMPT, NEGATIVE = "a photograph of a lighthouse on a cliff at night, two boats", "blurry, text"
ALLOWED = {"prompt": 1e-5, "network": 1e-5, "encode": 1e-5, "decode": 1e-5, "picture": 1e-4}
Answers = dict[str, Tensor]


def guided(kind: str, config: dict[str, Any]) -> dict[str, Any]:
    """Guidance as the pipeline's call takes it."""
    if kind != "FluxPipeline":
        return {"guidance_scale": 5.0, "negative_prompt": NEGATIVE}
    distilled = bool(config.get("guidance_embeds"))
    return {"guidance_scale": 3.5 if distilled else 0.0, "max_sequence_length": 512 if distilled else 256}


@torch.no_grad()
def theirs(path: Path, args: argparse.Namespace) -> tuple[Answers, dict[str, Any]]:
    """What diffusers says, and the questions."""
    import diffusers

    index = json.loads((path / "model_index.json").read_text())
    without = {"safety_checker": None} if "safety_checker" in index else {}
    pipe = diffusers.DiffusionPipeline.from_pretrained(path, local_files_only=True, **without)
    pipe.set_progress_bar_config(disable=True)
    kind, body = type(pipe).__name__, getattr(pipe, "unet", None) or pipe.transformer
    call = guided(kind, dict(body.config))
    rng = torch.Generator().manual_seed(args.seed)
    width, height = (side // pipe.vae_scale_factor for side in args.size)
    flux = kind == "FluxPipeline"
    z = torch.randn(1, pipe.vae.config.latent_channels, height, width, generator=rng)
    x = torch.randn(1, 3, args.size[1], args.size[0], generator=rng).clamp(-1, 1)
    time = 500.0

    if flux:
        length = call["max_sequence_length"]
        context, pooled, ids = pipe.encode_prompt(PROMPT, PROMPT, max_sequence_length=length)
        places = pipe._prepare_latent_image_ids(1, height // 2, width // 2, "cpu", torch.float32)
        guidance = torch.tensor([call["guidance_scale"]]) if body.config.guidance_embeds else None
        packed = pipe._pack_latents(z, 1, z.shape[1], height, width)
        answer = body(
            hidden_states=packed, timestep=torch.tensor([time / 1000]), guidance=guidance,
            pooled_projections=pooled, encoder_hidden_states=context, txt_ids=ids, img_ids=places,
        ).sample  # fmt: skip
        answer = pipe._unpack_latents(answer, *args.size[::-1], pipe.vae_scale_factor)
    else:
        three = ["prompt_2", "prompt_3"] if kind == "StableDiffusion3Pipeline" else []
        encoded = pipe.encode_prompt(
            **dict.fromkeys(["prompt", *three], PROMPT),
            **({"device": "cpu"} if kind == "StableDiffusionPipeline" else {}),
            num_images_per_prompt=1,
            do_classifier_free_guidance=False,
        )
        context, pooled = encoded[0], encoded[2] if len(encoded) > 2 else None
        times = torch.tensor([time])
        if kind == "StableDiffusion3Pipeline":
            answer = body(
                hidden_states=z, timestep=times, encoder_hidden_states=context, pooled_projections=pooled
            ).sample
        else:
            sizes = torch.tensor([[*args.size[::-1], 0, 0, *args.size[::-1]]])
            added = {"text_embeds": pooled, "time_ids": sizes} if pooled is not None else None
            answer = body(z, times, encoder_hidden_states=context, added_cond_kwargs=added).sample
    found = {"prompt": context, "network": answer}
    found["encode"] = torch.cat([(d := pipe.vae.encode(x).latent_dist).mean, d.logvar], 1)
    shift = pipe.vae.config.get("shift_factor") or 0.0
    found["decode"] = pipe.vae.decode(z / pipe.vae.config.scaling_factor + shift).sample
    found["picture"] = pipe(
        PROMPT, num_inference_steps=args.steps, width=args.size[0], height=args.size[1], output_type="pt",
        generator=torch.Generator().manual_seed(args.seed), **call,
    ).images  # fmt: skip
    call.pop("max_sequence_length", None)
    return found, {"z": z, "x": x, "time": time, **call}


@torch.no_grad()
def ours(path: Path, args: argparse.Namespace, asked: dict[str, Any]) -> Answers:
    """What Pictura says to the same questions."""
    family: Any = TextToImage.from_preset(path, dtype="float32").family
    values = {name: asked[name] for name in ("guidance_scale", "negative_prompt") if name in asked}
    written = Request(prompt=PROMPT, seed=args.seed, num_steps=args.steps, size=args.size, **values)
    request = written.completed(family.defaults())
    condition = driven(family, family.read(request, PROMPT))
    plan = family.plan(request)
    level = Level(0.5, 0.5) if plan.prediction == "flow" else plan.process.level(asked["time"])
    ask: Ask = family.ask(asked["z"], level, plan, condition, request)
    return {
        "prompt": condition.context,
        "network": family.evaluate(ask.net, ask.variant, **ask.inputs),
        "encode": family.evaluate("encode", (), x=asked["x"]),
        "decode": family.evaluate("decode", (), z=asked["z"]),
        "picture": solve(family, family.run(request, lambda level, x0: None)) / 2 + 0.5,
    }


def driven(family: Any, program: Any) -> Any:
    """What a sub-program returns, each question answered on the spot."""
    answers = None
    while True:
        try:
            asks = program.send(answers)
        except StopIteration as done:
            return done.value
        answers = tuple(family.evaluate(ask.net, ask.variant, **ask.inputs) for ask in asks)


def main(arguments: list[str] | None = None) -> int:
    shown_as = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=shown_as)
    parser.add_argument("path", type=Path, help="a folder in diffusers' layout")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--size", default="512x512", help="WxH")
    parser.add_argument("--json", action="store_true", help="one line of JSON instead of a table")
    args = parser.parse_args(arguments)
    args.size = tuple(int(side) for side in args.size.split("x"))
    if not (args.path / "model_index.json").is_file():
        parser.error(f"{args.path} has no model_index.json; give a folder in diffusers' layout")
    wanted, asked = theirs(args.path, args)
    gc.collect()
    said = ours(args.path, args, asked)
    off = {
        name: float((said[name].float() - answer.float()).abs().max() / answer.abs().max())
        for name, answer in wanted.items()
    }
    if args.json:
        print(json.dumps(off))
    else:
        for name, value in off.items():
            verdict = "equal" if value <= ALLOWED[name] else f"DIFFERENT (at most {ALLOWED[name]:.0e})"
            print(f"{name:8}  {value:.1e}  {verdict}")
    return 0 if all(value <= ALLOWED[name] for name, value in off.items()) else 1


if __name__ == "__main__":
    sys.exit(main())
