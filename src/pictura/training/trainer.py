"""The trainer: any family, one process or several, resumable to the same loss curve.

    for step: batch -> family.loss -> gradients of each named network -> mean over processes -> AdamW -> EMA

It knows a family only by `prepare`, `loss`, `begin_training` and the networks that gives. What `loss`
returns says what is updated: each key is a network's name, or several joined by "+", and its scalar moves
the parameters of those networks alone (so a GAN's two players are two keys). Example `i` of a run and the
random numbers of step `n` depend only on the recipe, so a run that was killed goes on as if it had not been.
"""

from __future__ import annotations

import itertools
import json
import math
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.multiprocessing.spawn import spawn

from pictura import families
from pictura.errors import TrainingError
from pictura.families import Family

from .beginning import begun
from .data import named
from .preference import DPO, Preferring
from .recipe import Optimizer, Recipe, read
from .results import averaged, export, grid

Networks = Mapping[str, nn.Module]


def parameters(networks: Networks, key: str) -> dict[str, nn.Parameter]:
    """Parameters of the networks joined in `key`, by "network.name"."""
    return {
        f"{net}.{name}": p
        for net in key.split("+")
        for name, p in networks[net].named_parameters()
        if p.requires_grad
    }


def adamw(networks: Networks, key: str, o: Optimizer) -> torch.optim.Optimizer:
    """AdamW over the networks joined in `key`, a group for each rate; "base" is the rate before warm-up."""
    lr = o.lr[key] if isinstance(o.lr, dict) else o.lr
    groups: dict[float, dict[str, Any]] = {}
    for name, p in parameters(networks, key).items():
        rate = lr * next((f for prefix, f in o.scale.items() if name.startswith(prefix)), 1.0)
        groups.setdefault(rate, {"params": [], "lr": rate, "base": rate})["params"].append(p)
    return torch.optim.AdamW(list(groups.values()), betas=o.betas, weight_decay=o.weight_decay, foreach=True)


class Ema:
    """Exponential average of all floating-point values of the networks, with start-up correction."""

    def __init__(self, networks: Networks, decay: float) -> None:
        self.decay = decay
        self.live = state(networks)
        self.average = {name: value.detach().clone() for name, value in self.live.items()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Take in the weights after `step` (0..); early steps are forgotten faster."""
        decay = min(self.decay, (1 + step) / (10 + step))
        pairs = [(self.average[n], v) for n, v in self.live.items() if v.is_floating_point()]
        torch._foreach_lerp_([a for a, _ in pairs], [v.detach() for _, v in pairs], 1 - decay)


def state(networks: Networks) -> dict[str, Tensor]:
    """Parameters and buffers by "network.name"; the tensors themselves, not copies."""
    return {f"{net}.{name}": v for net, module in networks.items() for name, v in module.state_dict().items()}


def save(
    path: Path, networks: Networks, ema: Ema, optimizers: Mapping[str, torch.optim.Optimizer], step: int
) -> None:
    """One file, replaced whole: weights, average and optimizer state, with the step in its header."""
    tensors = {f"weights/{name}": value for name, value in state(networks).items()}
    tensors |= {f"average/{name}": value for name, value in ema.average.items()}
    for key, optimizer in optimizers.items():
        for i, values in optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer/{key}/{i}/{name}": value for name, value in values.items()}
    temporary = path.with_suffix(".part")
    save_file({n: v.detach().contiguous() for n, v in tensors.items()}, temporary, {"step": str(step)})
    os.replace(temporary, path)


@torch.no_grad()
def load(path: Path, networks: Networks, ema: Ema, optimizers: Mapping[str, torch.optim.Optimizer]) -> int:
    """The step that `save` was called with; raises TrainingError if the file is of another network."""
    with safe_open(path, "pt") as file:
        names = set(file.keys())
        for prefix, target in (("weights", state(networks)), ("average", ema.average)):
            for name, value in target.items():
                if f"{prefix}/{name}" not in names:
                    raise TrainingError(
                        f"{path} cannot be resumed: it has no {name}; use another output folder"
                    )
                value.copy_(file.get_tensor(f"{prefix}/{name}"))
        for key, optimizer in optimizers.items():
            content = optimizer.state_dict()
            found: dict[int, dict[str, Tensor]] = {}
            for full in names:
                if full.startswith(f"optimizer/{key}/"):
                    i, name = full[len(f"optimizer/{key}/") :].split("/")
                    found.setdefault(int(i), {})[name] = file.get_tensor(full)
            optimizer.load_state_dict({**content, "state": found})
        return int(file.metadata()["step"])


def average_gradients(parts: list[Tensor]) -> list[Tensor]:
    """Mean over all processes, sent as one flat buffer."""
    if not (dist.is_available() and dist.is_initialized()):
        return parts
    flat = torch.cat([p.flatten() for p in parts])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    return [f.view_as(p) for f, p in zip(torch.split(flat, [p.numel() for p in parts]), parts, strict=True)]


def generator(*numbers: int) -> torch.Generator:
    """A generator of its own for each (seed, step, rank)."""
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % 2**63
    return torch.Generator().manual_seed(seed)


def update(
    family: Family,
    networks: Networks,
    optimizers: Mapping[str, torch.optim.Optimizer],
    batch: Mapping[str, Tensor],
    rng: torch.Generator,
    clip: float = math.inf,
) -> tuple[dict[str, Tensor], dict[str, float]]:
    """One training step: losses, gradients of each key's own parameters, optimizers. Returns losses and
    gradient norms by key. All gradients are taken before any parameter moves."""
    losses = family.loss(batch, rng)
    norms = {}
    for i, (key, loss) in enumerate(losses.items()):
        own = list(parameters(networks, key).values())
        grads = torch.autograd.grad(loss, own, retain_graph=i + 1 < len(losses), allow_unused=True)
        filled = [torch.zeros_like(p) if g is None else g for p, g in zip(own, grads, strict=True)]
        for p, g in zip(own, average_gradients(filled), strict=True):
            p.grad = g
        norms[key] = nn.utils.clip_grad_norm_(own, clip).item()
    for key in losses:
        optimizers[key].step()
        optimizers[key].zero_grad()
    return {key: loss.detach() for key, loss in losses.items()}, norms


def build(recipe: Recipe) -> tuple[Family, dict[str, nn.Module]]:
    """The family with the weights it begins with and what it trains, the same in every process."""
    torch.manual_seed(recipe.seed)
    data, loss = recipe.stage(recipe.samples)
    sample = None
    if recipe.start is not None:
        family = begun(recipe.start)
    else:
        family = families.load(recipe.family).from_config(recipe.architecture)
        source = named(recipe.data, **data)
        sample = family.prepare([source(i) for i in range(800)])
    if recipe.beta is not None:
        family = cast(Family, Preferring(family, DPO(beta=recipe.beta)))
    return family, family.begin_training(sample, **loss)


def run(recipe: Recipe, out: Path, rank: int, world: int) -> None:
    """One process of `world`; rank 0 writes log, checkpoints and grids."""
    torch.set_num_threads(recipe.threads)
    family, networks = build(recipe)
    device = torch.device(recipe.device)
    if recipe.device == "cuda":  # any of them
        device = torch.device("cuda", rank % torch.cuda.device_count())
    for module in networks.values():
        module.to(device).train()
        if recipe.compile:
            module.compile()
    rows = recipe.batch // world
    probe = family.prepare([named(recipe.data, **recipe.stage(0)[0])(i) for i in range(rows)])
    keys = family.loss({name: value.to(device) for name, value in probe.items()}, generator(0))
    optimizers = {key: adamw(networks, key, recipe.optimizer) for key in keys}
    ema = Ema(networks, recipe.ema)
    checkpoint = out / "state.safetensors"
    first = load(checkpoint, networks, ema, optimizers) if checkpoint.exists() else 0
    started = saved = drawn = time.monotonic()
    waited, since = 0.0, first
    for step in itertools.count(first):
        done = step * recipe.batch
        if done >= recipe.samples:
            break
        tick = time.monotonic()
        data, options = recipe.stage(done)
        family.begin_training(None, **options)
        source = named(recipe.data, **data)
        batch = family.prepare([source(done + rank * rows + i) for i in range(rows)])
        batch = {name: value.to(device) for name, value in batch.items()}
        waited += time.monotonic() - tick
        factor = recipe.rate(step, done)
        for group in (g for optimizer in optimizers.values() for g in optimizer.param_groups):
            group["lr"] = group["base"] * factor
        rng = generator(recipe.seed, step, rank)
        losses, norms = update(family, networks, optimizers, batch, rng, recipe.optimizer.clip)
        ema.update(step)
        last = done + recipe.batch >= recipe.samples
        if rank == 0 and ((step + 1) % recipe.log_every == 0 or last):
            elapsed = time.monotonic() - started
            entry = {
                "step": step + 1,
                "samples": done + recipe.batch,
                **{name: round(value.item(), 5) for name, value in getattr(family, "logs", losses).items()},
                "norm": {key: round(value, 4) for key, value in norms.items()},
                "rate": round(factor, 4),
                "samples_per_second": round((step + 1 - since) * recipe.batch / elapsed, 2),
                "waiting": round(waited / elapsed, 4),
            }
            with open(out / "log.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(entry) + "\n")
        if rank == 0 and (time.monotonic() - saved > 60 * recipe.save_minutes or last):
            save(checkpoint, networks, ema, optimizers, step + 1)
            saved = time.monotonic()
        if rank == 0 and (time.monotonic() - drawn > 60 * recipe.grid_minutes or last):
            own = family.family if isinstance(family, Preferring) else family
            drawing = averaged(own, ema.average)
            if recipe.grid:
                grid(drawing, recipe.grid, out / f"samples-{done + recipe.batch:09d}.png")
            provenance = {"recipe": recipe.model_dump(), "samples": done + recipe.batch}
            # Small steps away from given weights would be lost to half the digits.
            export(drawing, out / "preset", provenance, half=recipe.start is None)
            drawn = time.monotonic()


def worker(rank: int, recipe: Recipe, out: Path, world: int) -> None:
    """Process `rank` of `world`: join the others, then `run`."""
    if world > 1:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
        backend = "nccl" if recipe.device.startswith("cuda") else "gloo"
        dist.init_process_group(
            backend, init_method=f"file://{out / 'rendezvous'}", rank=rank, world_size=world
        )
    try:
        run(recipe, out, rank, world)
    finally:
        if world > 1:
            dist.destroy_process_group()


def _process(rank: int, recipe: Recipe, out: Path, world: int) -> None:
    """A spawned process, which leaves without taking Python apart: gloo's threads may still hold tensors of
    the last exchange, and to free those after Python has gone aborts a process that did all its work."""
    worker(rank, recipe, out, world)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def train(path: str | Path, out: str | Path, *, resume: bool = True, processes: int | None = None) -> None:
    """Train as the recipe file at `path` says; `processes` overrides its number of processes.

    `out` gets log.jsonl, samples-*.png, state.safetensors (to go on from) and preset/ (to use). TrainingError
    if a run is there and `resume` is False.
    """
    recipe = read(path)
    if processes is not None:
        recipe = recipe.model_copy(update={"processes": processes})
    if not resume and (Path(out) / "state.safetensors").exists():
        raise TrainingError(f"folder {str(out)!r} holds a run already; resume it or choose another folder")
    launch(recipe, out)


def launch(recipe: Recipe, out: str | Path) -> None:
    """Train as the recipe says, going on from `out` if a run is there."""
    out = Path(out).resolve()
    out.mkdir(parents=True, exist_ok=True)
    (out / "rendezvous").unlink(missing_ok=True)
    if recipe.batch % recipe.processes:
        raise TrainingError(f"batch {recipe.batch} does not divide among {recipe.processes} processes")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # spinning threads slow every other process down
    if recipe.processes == 1:
        worker(0, recipe, out, 1)
    else:
        os.environ["OMP_NUM_THREADS"] = str(recipe.threads)
        spawn(_process, args=(recipe, out, recipe.processes), nprocs=recipe.processes)  # type: ignore[no-untyped-call]
