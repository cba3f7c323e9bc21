"""Small changes of a network's weights: LoRA (Hu et al. 2022), LoHa and LoKr (Yeh et al. 2024), DoRA.

A `Delta` belongs to one linear or convolution layer. *Live* it is added to the layer's answer while a
network is asked, and the weights are never touched; *fused* it is added to the weights, and what they were
is kept, so that taking it out gives the same bits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pictura.errors import ParameterError

__all__ = [
    "Delta",
    "Fused",
    "Hadamard",
    "Kronecker",
    "Low",
    "Magnitude",
    "Placed",
    "fuse",
    "injected",
    "tucker",
]


class Delta(Protocol):
    """A change of one layer's weight."""

    def full(self, weight: Tensor) -> Tensor:
        """The change in the shape of `weight`, (out, in) or (out, in, kh, kw), in float32."""
        ...

    def answer(self, layer: nn.Module, x: Tensor, scale: float) -> Tensor:
        """What the change times `scale` adds to the layer's answer to x."""
        ...


class _Whole:
    """Deltas that are cheapest as a matrix of their own."""

    def full(self, weight: Tensor) -> Tensor:
        raise NotImplementedError

    def answer(self, layer: nn.Module, x: Tensor, scale: float) -> Tensor:
        return _applied(layer, x, (scale * self.full(layer.weight)).to(x.dtype))  # type: ignore[arg-type]


def tucker(core: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """sum over i, j of a[i, o] b[j, n] core[i, j, h, w]: (r, r, kh, kw), (r, out), (r, in) -> (out, in, kh,
    kw), in float32 (Tucker 1966; in LyCORIS, Yeh et al. 2024)."""
    return torch.einsum("ijhw,io,jn->onhw", core.float(), a.float(), b.float())


@dataclass(frozen=True, slots=True, eq=False)
class Low:
    """W' = W + factor B A. down A: (r, in) or (r, in, kh, kw); up B: (out, r) or (out, r, 1, 1).

    core: of convolutions in Tucker form (r, r, kh, kw), between a 1 x 1 A and B.
    """

    down: Tensor
    up: Tensor
    factor: float
    core: Tensor | None = None

    def full(self, weight: Tensor) -> Tensor:
        if self.core is not None:
            return self.factor * tucker(self.core, self.up.flatten(1).T, self.down.flatten(1))
        change = self.up.float().flatten(1) @ self.down.float().flatten(1)
        return self.factor * change.view(weight.shape)

    def answer(self, layer: nn.Module, x: Tensor, scale: float) -> Tensor:
        down, up = self.down.to(x), self.up.to(x)
        scale *= self.factor
        if isinstance(layer, nn.Conv2d):
            if self.core is None:
                kernel = down.view(len(down), -1, *layer.kernel_size)
            else:
                x, kernel = F.conv2d(x, down.view(*down.shape[:2], 1, 1)), self.core.to(x)
            inner = F.conv2d(x, kernel, None, layer.stride, layer.padding)
            return scale * F.conv2d(inner, up.view(*up.shape[:2], 1, 1))
        return scale * F.linear(F.linear(x, down.flatten(1)), up.flatten(1))


@dataclass(frozen=True, slots=True, eq=False)
class Hadamard(_Whole):
    """W' = W + factor (A1 B1) * (A2 B2), element by element; with `cores` both are in Tucker form."""

    first: tuple[Tensor, Tensor]
    second: tuple[Tensor, Tensor]
    factor: float
    cores: tuple[Tensor, Tensor] | None = None

    def full(self, weight: Tensor) -> Tensor:
        pairs = (self.first, self.second)
        if self.cores is None:
            one, other = (a.float() @ b.float() for a, b in pairs)
        else:
            one, other = (tucker(core, a, b) for core, (a, b) in zip(self.cores, pairs, strict=True))
        return self.factor * (one * other).view(weight.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Kronecker(_Whole):
    """W' = W + factor kron(C, D); a kernel's two axes are D's."""

    left: Tensor
    right: Tensor
    factor: float

    def full(self, weight: Tensor) -> Tensor:
        left, right = self.left.float(), self.right.float().contiguous()
        if right.ndim == 4:
            left = left.view(*left.shape, 1, 1)
        return self.factor * torch.kron(left, right).view(weight.shape)


@dataclass(frozen=True, slots=True, eq=False)
class Magnitude(_Whole):
    """DoRA (Liu et al. 2024): W' = m (W + D) / |W + D|, norms and m (out,) for each row."""

    inner: Delta
    magnitude: Tensor

    def full(self, weight: Tensor) -> Tensor:
        before = weight.float()
        moved = before + self.inner.full(weight)
        norm = moved.flatten(1).norm(dim=1)
        rows = (self.magnitude.float().flatten().to(norm) / norm).view(-1, *[1] * (weight.ndim - 1))
        return rows * moved - before


@dataclass(frozen=True, slots=True, eq=False)
class Placed:
    """A delta, the layer it belongs to by its name in the network, and how strongly it counts."""

    layer: str
    delta: Delta
    scale: float


@contextmanager
def injected(network: nn.Module, changes: Sequence[Placed]) -> Iterator[None]:
    """While this lasts the network answers as if it were changed. For one thread at a time."""
    with ExitStack() as stack:
        for change in changes:
            hook = _hook(change)
            handle = network.get_submodule(change.layer).register_forward_hook(hook)
            stack.callback(handle.remove)
        yield


class Fused:
    """Changes that are in the weights until `remove`, which gives back the very bits that were there."""

    def __init__(self, kept: Mapping[Tensor, Tensor]) -> None:
        self._kept = dict(kept)

    def remove(self) -> None:
        """Take the changes out again; harmless when done twice."""
        with torch.no_grad():
            for weight, before in self._kept.items():
                weight.copy_(before)
        self._kept = {}

    def __enter__(self) -> Fused:
        return self

    def __exit__(self, *_: object) -> None:
        self.remove()


def fuse(networks: Mapping[str, nn.Module], changes: Mapping[str, Sequence[Placed]]) -> Fused:
    """Add the changes of each network to its weights. What they were stays in memory until it is removed.

    ParameterError where a network's weights stay in their file or are int8.
    """
    kept: dict[Tensor, Tensor] = {}
    with torch.no_grad():
        for name, placed in changes.items():
            for change in placed:
                weight = networks[name].get_submodule(change.layer).weight
                assert isinstance(weight, Tensor)
                if not weight.is_floating_point() or not any(weight.stride()):
                    raise ParameterError(
                        f"layer {change.layer!r} has no weights to add a LoRA to: the model was loaded in "
                        "int8 or with low_memory; give the LoRA as an option, or load with dtype='float32'",
                        parameter="lora",
                    )
                kept.setdefault(weight, weight.clone())
                moved = weight.float() + change.scale * change.delta.full(weight).to(weight.device)
                weight.copy_(moved)
    return Fused(kept)


def _hook(change: Placed):  # type: ignore[no-untyped-def]  # torch's hooks
    def add(layer: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        return answer + change.delta.answer(layer, given[0], change.scale)

    return add


def _applied(layer: nn.Module, x: Tensor, weight: Tensor) -> Tensor:
    if isinstance(layer, nn.Conv2d):
        return F.conv2d(x, weight, None, layer.stride, layer.padding)
    return F.linear(x, weight)
