"""Noise levels and the processes that order them: x_t = alpha * x_0 + sigma * noise.

Everything here is plain Python floats: a sampler that reads a level never waits for a device.
Three curves are in use, and one sampler text serves all of them:

    VE    alpha = 1                        Song et al. 2020 (score SDE), Karras et al. 2022
    VP    alpha^2 + sigma^2 = 1            Ho et al. 2020
    Flow  alpha + sigma = 1                Lipman et al. 2022, Liu et al. 2022

A *process* knows its curve, the time its network is conditioned on, and its own schedule.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import cos, exp, inf, isclose, log, pi, sqrt
from typing import Literal, NamedTuple, Protocol

Curve = Literal["ve", "vp", "flow"]


class Level(NamedTuple):
    """How much picture (`alpha`) and how much noise (`sigma`) an x_t holds."""

    alpha: float
    sigma: float

    @property
    def ratio(self) -> float:
        """sigma / alpha, infinite for pure noise."""
        return self.sigma / self.alpha if self.alpha > 0 else inf

    @property
    def logsnr(self) -> float:
        """lambda = log(alpha / sigma), half the log signal-to-noise ratio, as DPM-Solver writes it."""
        if self.sigma == 0:
            return inf
        return log(self.alpha / self.sigma) if self.alpha > 0 else -inf


CLEAN = Level(1.0, 0.0)


def curve_of(levels: Sequence[Level]) -> Curve:
    """The curve that a run of levels lies on, read from its levels strictly between noise and picture.

    A run that has none of those (pure noise straight to the picture) counts as a flow.
    """
    inner = [level for level in levels if level.alpha > 0 and level.sigma > 0]
    if all(isclose(level.alpha + level.sigma, 1.0, abs_tol=1e-9) for level in inner):
        return "flow"
    if all(level.alpha == 1.0 for level in inner):
        return "ve"
    return "vp"


def on_curve(curve: Curve, ratio: float) -> Level:
    """The level of a curve whose sigma / alpha is `ratio` (0 up to infinity; finite for VE)."""
    if curve == "ve":
        return Level(1.0, ratio)
    if ratio == inf:
        return Level(0.0, 1.0)
    alpha = 1.0 / (1.0 + ratio) if curve == "flow" else 1.0 / sqrt(1.0 + ratio * ratio)
    return Level(alpha, ratio * alpha)


class Process(Protocol):
    """What schedules and families need to know about a noise process.

    `sigma_of` and `from_sigma` speak the scale in which the field writes schedules: sigma / alpha for
    VP and VE, sigma itself for flows (where sigma / alpha is infinite at the start).
    """

    def levels(self, num_steps: int) -> tuple[Level, ...]:
        """The process's own schedule: `num_steps` + 1 levels, noisiest first."""
        ...

    def ends(self, num_steps: int) -> tuple[float, float]:
        """Largest and smallest (above zero) sigma between which other schedules interpolate."""
        ...

    def sigma_of(self, level: Level) -> float:
        """`level` on the scale of schedules."""
        ...

    def from_sigma(self, sigma: float) -> Level:
        """The level at `sigma` on the scale of schedules."""
        ...

    def level(self, time: float) -> Level:
        """The level at a time, the inverse of `time`."""
        ...

    def time(self, level: Level) -> float:
        """The time of a level, as the process's networks are conditioned on it."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class VP:
    """A discrete variance-preserving process given by its cumulative products of (1 - beta).

    Time is the training step, 0 (cleanest) to len(alphas) - 1; between two steps log(sigma / alpha) is
    interpolated linearly. `spacing` and `offset` choose the steps of the own schedule as the field names
    them (Lin et al. 2023, table 2); `to_zero` ends it at the clean picture, otherwise at step 0.
    """

    alphas_cumprod: tuple[float, ...]
    spacing: Literal["linspace", "leading", "trailing"] = "trailing"
    offset: int = 0
    to_zero: bool = True

    def level(self, time: float) -> Level:
        low = min(max(int(time), 0), len(self.alphas_cumprod) - 1)
        high = min(low + 1, len(self.alphas_cumprod) - 1)
        if high == low or time <= low:
            product = self.alphas_cumprod[low]
            return Level(sqrt(product), sqrt(1.0 - product))
        return on_curve("vp", exp(_mix(self._log_ratio(low), self._log_ratio(high), time - low)))

    def time(self, level: Level) -> float:
        steps = range(len(self.alphas_cumprod))
        if level.sigma == 0:
            return 0.0
        wanted = log(level.ratio) if level.alpha > 0 else inf
        high = bisect_left(steps, wanted, key=self._log_ratio)
        if high == 0:
            return 0.0
        if high == len(steps):
            return float(len(steps) - 1)
        below, above = self._log_ratio(high - 1), self._log_ratio(high)
        return high - 1 + ((wanted - below) / (above - below) if above < inf else float(wanted == inf))

    def levels(self, num_steps: int) -> tuple[Level, ...]:
        total = len(self.alphas_cumprod)
        if self.spacing == "linspace":
            times = [(total - 1) * (1 - i / max(num_steps - 1, 1)) for i in range(num_steps)]
        elif self.spacing == "leading":
            times = [float(total // num_steps * i + self.offset) for i in reversed(range(num_steps))]
        else:
            times = [float(round(total - total / num_steps * i) - 1) for i in range(num_steps)]
        return (*(self.level(time) for time in times), CLEAN if self.to_zero else self.level(0))

    def ends(self, num_steps: int) -> tuple[float, float]:
        return self.level(len(self.alphas_cumprod) - 1).ratio, self.level(0).ratio

    def sigma_of(self, level: Level) -> float:
        return level.ratio

    def from_sigma(self, sigma: float) -> Level:
        return on_curve("vp", sigma)

    def _log_ratio(self, step: int) -> float:
        product = self.alphas_cumprod[step]
        return 0.5 * log((1.0 - product) / product) if product > 0 else inf


@dataclass(frozen=True, slots=True, kw_only=True)
class VE:
    """A variance-exploding process between two sigmas; own schedule: Karras et al. 2022, eq. 5 (rho = 7).

    Time is log(sigma) / 4, the `c_noise` of that paper (table 1).
    """

    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def level(self, time: float) -> Level:
        return Level(1.0, exp(4.0 * time))

    def time(self, level: Level) -> float:
        return log(level.sigma) / 4.0 if level.sigma > 0 else -inf

    def levels(self, num_steps: int) -> tuple[Level, ...]:
        high, low = self.sigma_max ** (1 / self.rho), self.sigma_min ** (1 / self.rho)
        sigmas = [_mix(high, low, i / max(num_steps - 1, 1)) ** self.rho for i in range(num_steps)]
        return (*(Level(1.0, sigma) for sigma in sigmas), CLEAN)

    def ends(self, num_steps: int) -> tuple[float, float]:
        return self.sigma_max, self.sigma_min

    def sigma_of(self, level: Level) -> float:
        return level.sigma

    def from_sigma(self, sigma: float) -> Level:
        return Level(1.0, sigma)


@dataclass(frozen=True, slots=True, kw_only=True)
class Flow:
    """A rectified flow, sigma from 1 (noise) to 0; own schedule: even steps, then `shift`.

    Shift moves steps towards noise (Esser et al. 2024, section 5.3.2):
    sigma' = shift * sigma / (1 + (shift - 1) * sigma). In steps, counting from the noise with n of them,
    the picture's share of step i becomes i / (i + shift * (n - i)).
    Time is sigma * `scale`. `last` is the smallest sigma above zero before the shift, 1/n when None.
    """

    shift: float = 1.0
    scale: float = 1.0
    last: float | None = None

    def level(self, time: float) -> Level:
        return self.from_sigma(time / self.scale)

    def time(self, level: Level) -> float:
        return level.sigma * self.scale

    def levels(self, num_steps: int) -> tuple[Level, ...]:
        last = 1.0 / num_steps if self.last is None else self.last
        even = [_mix(1.0, last, i / max(num_steps - 1, 1)) for i in range(num_steps)]
        return (*(self.from_sigma(shifted(sigma, self.shift)) for sigma in even), CLEAN)

    def ends(self, num_steps: int) -> tuple[float, float]:
        own = self.levels(num_steps)
        return own[0].sigma, own[-2].sigma

    def sigma_of(self, level: Level) -> float:
        return level.sigma

    def from_sigma(self, sigma: float) -> Level:
        return Level(1.0 - sigma, sigma)


def shifted(sigma: float, shift: float) -> float:
    """Move a flow's sigma towards noise by `shift` (1 leaves it; Esser et al. 2024, eq. 23)."""
    return shift * sigma / (1.0 + (shift - 1.0) * sigma)


def scaled_linear(steps: int = 1000, first: float = 0.00085, last: float = 0.012) -> tuple[float, ...]:
    """Cumulative products for betas whose square roots are evenly spaced (latent diffusion)."""
    roots = [_mix(sqrt(first), sqrt(last), i / (steps - 1)) for i in range(steps)]
    return _cumulative([root * root for root in roots])


def linear(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> tuple[float, ...]:
    """Cumulative products for evenly spaced betas (Ho et al. 2020, section 4)."""
    return _cumulative([_mix(first, last, i / (steps - 1)) for i in range(steps)])


def cosine(steps: int = 1000) -> tuple[float, ...]:
    """Cumulative products of the squared-cosine schedule (Nichol and Dhariwal 2021, eq. 17)."""

    def bar(time: float) -> float:
        return cos((time + 0.008) / 1.008 * pi / 2) ** 2

    return _cumulative([min(1 - bar((i + 1) / steps) / bar(i / steps), 0.999) for i in range(steps)])


def _cumulative(betas: Sequence[float]) -> tuple[float, ...]:
    products, product = [], 1.0
    for beta in betas:
        product *= 1.0 - beta
        products.append(product)
    return tuple(products)


def _mix(start: float, end: float, share: float) -> float:
    return start + (end - start) * share
