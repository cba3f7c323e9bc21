"""What a step costs besides the network: our samplers on the engine against diffusers' schedulers in a loop.

Both guide (two rows a step) a network of one convolution on a 4 x 16 x 16 latent, so nearly all the time is
the machinery's. The diffusers loop is the one its documentation shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from _common import arguments, in_turn, machine, seconds, spread, write
from torch import Tensor, nn

from pictura import samplers
from pictura.engine import Ask, Engine, Program, translate
from pictura.guidance import cfg
from pictura.levels import VP, Level, scaled_linear

SCHEDULERS = {
    "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler",
    "heun": "HeunDiscreteScheduler",
    "ddim": "DDIMScheduler",
    "dpmpp_2m": "DPMSolverMultistepScheduler",
    "unipc": "UniPCMultistepScheduler",
}
SHAPE = (1, 4, 16, 16)
SCALE = 3.0
PROCESS = VP(alphas_cumprod=scaled_linear())


class Small(nn.Module):
    """x (b, 4, 16, 16), text (b, 4) -> the same shape as x."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: Tensor, text: Tensor) -> Tensor:
        return torch.tanh(self.conv(x) + text[:, :, None, None])

    def evaluate(self, net: str, variant: object, **inputs: Tensor) -> Tensor:
        return self(inputs["x"], inputs["text"])


def program(name: str, steps: int) -> Program:
    rng = torch.Generator().manual_seed(0)

    def noise() -> Tensor:
        return torch.randn(SHAPE, generator=rng)

    def ask(x: Tensor, level: Level, text: Tensor) -> Ask:
        return Ask("denoiser", {"x": x, "text": text})

    levels = PROCESS.levels(steps)
    solver = samplers.load(name)(noise() * levels[0].sigma, levels, noise)
    return translate(solver, cfg(ask, torch.ones(1, 4), torch.zeros(1, 4), SCALE))


def ours(network: Small, name: str, steps: int) -> int:
    """Evaluations asked for."""
    engine = Engine(network)
    ticket = engine.add(program(name, steps))
    engine.run()
    if ticket.error is not None:
        raise ticket.error
    return ticket.evaluations // 2


def theirs(network: Small, name: str, steps: int) -> Callable[[], int]:
    """The loop, with its scheduler built once, as in a pipeline."""
    import diffusers

    scheduler = getattr(diffusers, SCHEDULERS[name])(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012
    )
    text = torch.cat([torch.zeros(1, 4), torch.ones(1, 4)])

    @torch.no_grad()
    def loop() -> int:
        scheduler.set_timesteps(steps)
        rng = torch.Generator().manual_seed(0)
        x = torch.randn(SHAPE, generator=rng) * scheduler.init_noise_sigma
        extra = {"generator": rng} if name in ("euler", "euler_ancestral", "ddim", "dpmpp_2m") else {}
        for t in scheduler.timesteps:
            both = scheduler.scale_model_input(torch.cat([x] * 2), t)
            no, yes = network(both, text).chunk(2)
            x = scheduler.step(no + SCALE * (yes - no), t, x, **extra).prev_sample
        return len(scheduler.timesteps)

    return loop


def main() -> None:
    options, before = arguments(__doc__ or ""), machine()
    runs, steps = (1, 4) if options.quick else (15, 30)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    network = Small().requires_grad_(False)
    results: dict[str, Any] = {"steps": steps, "microseconds_an_evaluation": {}, "of_diffusers": {}}
    for name in SCHEDULERS:
        loops = {"pictura": lambda n=name: ours(network, n, steps), "diffusers": theirs(network, name, steps)}
        counts = {who: loop() for who, loop in loops.items()}
        took = in_turn({who: lambda c=loop: seconds(c) for who, loop in loops.items()}, runs)
        told = {who: spread([1e6 * s / counts[who] for s in values], 1) for who, values in took.items()}
        results["microseconds_an_evaluation"][name] = told
        results["of_diffusers"][name] = round(told["pictura"]["median"] / told["diffusers"]["median"], 3)
    write("samplers", results, options, before)


if __name__ == "__main__":
    main()
