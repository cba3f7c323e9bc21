"""Latent diffusion (Rombach et al. 2022): what Stable Diffusion 1 to 3.5 and FLUX share.

A family is a folder's components by their names there (`unet` or `transformer`, `vae`, `text_encoder`, ...)
and its scheduler configuration. It says how prompts are read (`read`) and how its network is asked (`ask`);
everything else, from noise, picture or mask to the decoded picture, is here.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Hashable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from pictura import samplers, schedulers
from pictura.engine import Answers, Ask, Denoise, Program, SubProgram, translate, watched
from pictura.errors import PresetError, shown
from pictura.families import Option
from pictura.families.latent import checks, guiding, reading, sizes, start, timing
from pictura.families.latent.guiding import ALL, Predict, Window
from pictura.families.latent.loras import Loras, With
from pictura.families.latent.options import OPTIONS
from pictura.families.latent.timing import Condition, Timed
from pictura.families.latent.training import Training
from pictura.formats.rules import Rule
from pictura.formats.streaming import absent
from pictura.levels import Level
from pictura.nn.block_cache import BlockCache
from pictura.nn.deep_cache import DeepCache
from pictura.nn.packed import pack
from pictura.nn.rows import like_dealt, singly
from pictura.nn.vae import AutoencoderKL
from pictura.request import Request
from pictura.schedulers import Plan

__all__ = ["LatentDiffusion"]

SMALL = 32_000_000  # parameters of a network that is asked many rows at once
# Parameters times positions of a row: where calling the operations takes longer than computing them, and
# where one thread answers in 0.1 s or less.
FAINT, LITTLE = 100_000_000, 8_000_000_000
COMMON = {"size", "num_steps", "guidance_scale", "sampler", "schedule", "negative_prompt"}
Reading = Generator[tuple[Ask, ...], Answers, Condition]


class LatentDiffusion(Training):
    """See the contract in `families`. assets: the tokenizers, JSON of the library `tokenizers`, by name."""

    name: ClassVar[str]
    body: ClassVar[str]  # the component that denoises
    components: ClassVar[tuple[str, ...]]
    even: ClassVar[bool] = False  # whether flows start from evenly spaced sigmas, see `schedulers.plan`
    options: ClassVar[Mapping[str, Option]] = {option.name: option for option in OPTIONS}
    parameters: ClassVar[frozenset[str]] = frozenset({*COMMON, *options})

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.architecture = dict(config)
        self.assets: dict[str, bytes] = {}
        for needed in (self.body, "vae", "scheduler"):
            if not isinstance(config.get(needed), Mapping):
                raise PresetError(f"{self.name} needs the configuration of its {needed}; give config=DIR")
        self.parts: dict[str, nn.Module] = {
            name: self.build(name, config[name]) for name in self.components if config.get(name) is not None
        }
        self.scheduler: dict[str, Any] = self.scheduled(config["scheduler"])
        self._counts = {name: sum(p.numel() for p in part.parameters()) for name, part in self.parts.items()}
        if self._counts[self.body] <= SMALL:
            for name, part in self.parts.items():
                if self._counts[name] <= SMALL:
                    pack(part)
        self.loras = Loras(self)

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """`config` has a folder's configurations by component, "scheduler" among them, its flags, and maybe
        "size", the side in pixels that it was trained for; PresetError for anything else."""
        for key, value in config.items():
            known = key in (*cls.components, "scheduler", "size") or isinstance(value, bool)
            if not known:
                parts = ", ".join((*cls.components, "scheduler", "size"))
                raise PresetError(f"{cls.name} has no component {shown(key)}; it has {parts}")
        return cls(config)

    # What a family says

    def build(self, component: str, config: Mapping[str, Any]) -> nn.Module:
        """The network of a component."""
        raise NotImplementedError

    def lengths(self, request: Request) -> Mapping[str, int]:
        """How many tokens each encoder reads at once."""
        return {
            name: reading.length_of(part)
            for name, part in self.parts.items()
            if name.startswith("text_encoder")
        }

    def read(self, request: Request, prompt: str | None, *, negative: bool = False) -> Reading:
        """Encode a prompt; None is what a request without a negative prompt has for one."""
        raise NotImplementedError

    def ask(self, x: Tensor, level: Level, plan: Plan, condition: Condition, request: Request) -> Ask:
        """The question to the network at x (1, z, h, w)."""
        raise NotImplementedError

    def originals(self) -> Mapping[str, Iterable[Rule]]:
        """By component, the rules by which its makers' names become ours; LoRAs may use those."""
        return {}

    def scheduled(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """The scheduler configuration as the family's pipeline uses it."""
        return dict(config)

    def scale_of(self, request: Request) -> float:
        """How far answers are moved away from those to the negative prompt; 1 or less asks for one only."""
        return request.guidance_scale or 0.0

    def tokens(self, height: int, width: int) -> int:
        """Length of the sequence that a latent becomes, for schedules that look at it."""
        return height * width // 4

    @property
    def multiple(self) -> int:
        """Sides of pictures are multiples of this."""
        return self.vae.factor

    @property
    def inpaints(self) -> bool:
        """Whether the network sees a mask and what lies around it beside x."""
        return False

    @property
    def largest(self) -> int:
        """The longest side in pixels."""
        raise NotImplementedError

    def standard(self) -> dict[str, Any]:
        """num_steps and guidance_scale as its makers recommend them."""
        raise NotImplementedError

    # The contract

    @property
    def vae(self) -> AutoencoderKL:
        vae = self.parts["vae"]
        assert isinstance(vae, AutoencoderKL)
        return vae

    @property
    def rows(self) -> int | None:
        """On a CPU small networks have many rows a pass. Large ones have one: more gain nothing, and a
        picture's bits must not depend on others."""
        if next(self.parts[self.body].parameters()).device.type != "cpu":
            return None
        return 32 if self._counts[self.body] <= SMALL else 1

    def config(self) -> dict[str, Any]:
        return dict(self.architecture)

    def defaults(self) -> dict[str, Any]:
        found = {**self.standard(), "schedule": "own", "size": (self.native, self.native)}
        if self.scheduler.get("_class_name") or schedulers.is_flow(self.scheduler):
            found["sampler"] = schedulers.own_sampler(self.scheduler)
        return found

    def resolve(self, request: Request) -> Request:
        """`request` with what it says in other words: the size by an aspect or a picture, and how much of the
        picture is made anew."""
        options = dict(request.options)
        if options.get("image") is not None and options.get("strength") is None:
            options["strength"] = start.strength(options)
        size = request.size or sizes.wanted(options, self.native, self.multiple)
        return replace(request, size=size, options=options)

    def check(self, request: Request) -> None:
        checks.check(self, request)
        reading.check(self, request)
        self.loras.check(request.options.get("lora"))

    def notes(self, request: Request) -> tuple[str, ...]:
        return reading.notes(self, request)

    def networks(self) -> dict[str, nn.Module]:
        return dict(self.parts)

    def evaluations(self, request: Request) -> int:
        """How often `run` calls its note."""
        count = 0
        for part in start.passes(request, self.multiple):
            plan = self.plan(part.request)
            begin = start.begin(part, flow=schedulers.is_flow(self.scheduler))
            options = checks.sampler_options(plan.sampler, request.options)
            count += samplers.evaluations(plan.sampler, plan.levels[begin:], **plan.options, **options)
        return count

    def plan(self, request: Request) -> Plan:
        """What the request's run visits."""
        assert request.num_steps is not None and request.size is not None
        width, height = (side // self.vae.factor for side in request.size)
        return schedulers.plan(
            self.scheduler,
            request.num_steps,
            sampler=request.sampler,
            schedule=request.schedule or "own",
            tokens=self.tokens(height, width),
            even=self.even,
        )

    # Making a picture

    def run(self, request: Request, note: Callable[[Level, Tensor], None]) -> Program:
        """One pass from noise or from a picture, or two: a small one, and one that adds detail to it."""
        return self.loras.tagged(self._run(request, note), request.options.get("lora"))

    def _run(self, request: Request, note: Callable[[Level, Tensor], None]) -> Program:
        assert request.seed is not None and request.size is not None
        rng = torch.Generator().manual_seed(request.seed)
        (palette,) = yield (Ask("palette", {"none": torch.zeros(1, 1)}, memo=()),)

        def told(level: Level, latent: Tensor) -> None:
            note(level, guiding.coloured(latent, palette))

        yes, no = yield from timing.conditions(self, request)
        picture: Tensor | None = None
        for part in start.passes(request, self.multiple):
            picture = yield from self._pass(part, yes, no, picture, rng, told)
        assert picture is not None
        return picture.clamp(-1, 1)

    def _pass(
        self,
        part: start.Pass,
        yes: list[Timed],
        no: Timed | None,
        picture: Tensor | None,
        rng: torch.Generator,
        note: Callable[[Level, Tensor], None],
    ) -> SubProgram:
        request, plan = part.request, self.plan(part.request)
        assert request.size is not None
        width, height = (side // self.vae.factor for side in request.size)

        def noise() -> Tensor:
            return torch.randn(1, self.vae.config.latent_channels, height, width, generator=rng)

        begun = yield from start.prepare(self, part, plan, picture, noise)
        predict = self._predict(request, plan, yes, no, begun)
        if part.tile:
            side = self.native // self.vae.factor
            predict = guiding.tiled(predict, height, width, min(side, max(height, width)))
        denoise = start.kept(self._denoise(plan, predict), begun, plan.levels[begun.begin])
        options = checks.sampler_options(plan.sampler, request.options)
        solver = schedulers.solver(plan, begun.x, noise, begin=begun.begin, **options)
        latent = yield from translate(solver, watched(denoise, note))
        (picture,) = yield (Ask("decode", {"z": latent}),)
        return picture

    def _denoise(self, plan: Plan, predict: Predict) -> Denoise:
        def denoise(x: Tensor, level: Level) -> SubProgram:
            answer = yield from predict(x, level, ALL)
            return plan.consistent(x, level, plan.x0(x, level, answer))

        return denoise

    def _predict(
        self, request: Request, plan: Plan, yes: list[Timed], no: Timed | None, begun: start.Begun
    ) -> Predict:
        """The network's guided answer, regions blended."""
        scale, phi = self.scale_of(request), request.options.get("guidance_rescale") or 0.0
        interval = checks.interval(request.options)
        tolerance, every = request.options.get("block_cache") or 0.0, request.options.get("deep_cache") or 1

        def asking(timed: Timed) -> guiding.MakeAsk:
            caches: dict[tuple[int, str], BlockCache | DeepCache] = {}  # by condition and part of the picture

            def ask(x: Tensor, level: Level, window: Window) -> Ask:
                condition = timed.at(timing.step_of(level, plan.levels))
                question = self.ask(x[window], level, plan, condition, request)
                if tolerance or every > 1:
                    new = BlockCache(tolerance) if tolerance else DeepCache(every)
                    cache = caches.setdefault((id(condition), str(window)), new)
                    question = replace(question, variant=cache)
                if begun.beside is None:
                    return question
                more = torch.cat([question.inputs["x"], begun.beside[window]], 1)
                return replace(question, inputs={**question.inputs, "x": more})

            return ask

        null = None if no is None else asking(no)
        predicts = [guiding.guided(asking(one), null, scale, phi, interval) for one in yes]
        return guiding.regional(predicts, begun.regions)

    # Networks

    def evaluate(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        """ "encode": picture x (b, 3, h, w) -> mean and log-variance of its latent (b, 2 z, h', w').
        "decode": latent z as the model sees it -> picture. "palette": -> (b, 3, z + 1), the colour that each
        channel stands for and, last, that of zero. Others are components, see the family."""
        dtype = next(self.parts[_part_of(net)].parameters()).dtype
        cast = {name: _cast(x, name, dtype) for name, x in inputs.items()}
        if isinstance(variant, With):
            with self.loras.applied(net, variant.loras):
                answer = self._dealt(net, variant.inner, cast)
        else:
            answer = self._dealt(net, variant, cast)
        return answer.float() if dtype.itemsize < 4 else answer

    def _dealt(self, net: str, variant: Hashable, inputs: dict[str, Tensor]) -> Tensor:
        """On a CPU rows are answered alone, so that bits never depend on the company: by a thread each where
        there is little to do, all by one where there is hardly anything, otherwise in turn by all threads."""
        some, answer = next(iter(inputs.values())), partial(self._answer, net, variant)
        if some.device.type != "cpu":
            return answer(**inputs)
        name, positions = _part_of(net), some.shape[2 if some.ndim > 2 else 1 :].numel()
        work = positions * self._counts[name]
        light = work <= LITTLE and not variant  # others keep something meanwhile
        # Threads of faint rows would wait for the interpreter's lock; absent weights come and go for one.
        if light and (work <= FAINT or any(map(absent, self.parts[name].parameters()))):
            return like_dealt(lambda: singly(answer, dealt=False, **inputs))
        return singly(answer, dealt=light, **inputs)

    def _answer(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        if net == "encode":
            return torch.cat(self.vae.encode(inputs["x"]), 1)
        if net == "decode":
            picture: Tensor = self.vae.decode(self.unscaled(inputs["z"]))
            return picture
        if net == "palette":
            return self._palette(inputs["none"])
        return self.component(net, variant, **inputs)

    def component(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        """The answers of a component."""
        raise NotImplementedError

    def scaled(self, z: Tensor) -> Tensor:
        """The autoencoder's latent as the model sees it."""
        factor, shift = self._scaling(z)
        return (z - shift) * factor

    def unscaled(self, z: Tensor) -> Tensor:
        factor, shift = self._scaling(z)
        return z / factor + shift

    def _scaling(self, z: Tensor) -> tuple[Tensor | float, Tensor | float]:
        """One factor and shift, or some files' own for each channel."""
        vae = self.architecture["vae"]
        factor = float(vae.get("scaling_factor") or 0.18215)
        if vae.get("latents_mean") is None or vae.get("latents_std") is None:
            return factor, float(vae.get("shift_factor") or 0.0)
        mean, std = (z.new_tensor(vae[name]).view(1, -1, 1, 1) for name in ("latents_mean", "latents_std"))
        return factor / std, mean

    def _palette(self, rows: Tensor) -> Tensor:
        """Decode even latents, one for each channel, up and down, and look at the mean colours."""
        channels = self.vae.config.latent_channels
        probes = torch.cat([torch.eye(channels), -torch.eye(channels), torch.zeros(1, channels)]).to(rows)
        colours = self.vae.decode(self.unscaled(probes[:, :, None, None].expand(-1, -1, 2, 2)))
        means = colours.mean((2, 3))  # (2 z + 1, 3)
        slopes = (means[:channels] - means[channels:-1]) / 2
        return torch.cat([slopes, means[-1:]]).T.expand(len(rows), -1, -1)


def _part_of(net: str) -> str:
    return "vae" if net in ("encode", "decode", "palette") else net


def _cast(x: Tensor, name: str, dtype: torch.dtype) -> Tensor:
    """Networks turn times and scales into features themselves, which takes float32."""
    return x.to(dtype) if x.is_floating_point() and name not in ("time", "guidance") else x
