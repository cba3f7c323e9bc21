"""Networks larger than memory: a block's matrices are read when it is its turn, the next block's meanwhile.

A network says in `streams` which of its lists of blocks this can be done with, such as "transformer_blocks".
Everything else, small parameters of these blocks too, is loaded as usual.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pictura.formats.safetensors import Entry, fill

__all__ = ["absent", "matrices", "placeholder", "stream"]

Unit = dict[str, Tensor]  # the matrices of a block, by the names they have in the file


def placeholder(shape: torch.Size | tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor of that shape which takes no memory and holds nothing."""
    return torch.empty(1, dtype=dtype).expand(shape)


def absent(tensor: Tensor) -> bool:
    """Whether it is a placeholder."""
    return tensor.numel() > 1 and not any(tensor.stride())


def matrices(networks: Mapping[str, nn.Module]) -> Iterator[tuple[nn.Module, Unit]]:
    """(block, its matrices) for every block that can be streamed, network by network, in their order."""
    for network, module in networks.items():
        for path in getattr(module, "streams", ()):
            for number, block in enumerate(module.get_submodule(path).children()):
                head = f"{network}.{path}.{number}"
                yield (
                    block,
                    {
                        f"{head}.{name}.weight": linear.weight
                        for name, linear in block.named_modules()
                        if isinstance(linear, nn.Linear)
                    },
                )


def stream(
    networks: Mapping[str, nn.Module],
    entries: Mapping[str, Entry],
    *,
    device: torch.device | str,
    root: Path | None,
) -> None:
    """From now on, the matrices that `matrices` names are read from `entries` whenever their block is called.

    Between calls they are placeholders. A network is used by one thread at a time.
    """
    for network, module in networks.items():
        blocks = list(matrices({network: module}))
        if blocks:
            reader = _Reader([unit for _, unit in blocks], entries, device, root)
            for at, (block, _) in enumerate(blocks):
                block.register_forward_pre_hook(reader.entering(at))
                block.register_forward_hook(reader.leaving(at), always_call=True)


class _Reader:
    """Two buffers take turns: one block computes out of one while the next block is read into the other."""

    def __init__(
        self,
        units: list[Unit],
        entries: Mapping[str, Entry],
        device: torch.device | str,
        root: Path | None,
    ) -> None:
        self.units, self.entries, self.device, self.root = units, entries, device, root
        self.dtype = next(iter(units[0].values())).dtype
        self.size = max(sum(parameter.numel() for parameter in unit.values()) for unit in units)
        self.buffers: list[Tensor] = []
        self.ahead: tuple[int, Future[dict[str, Tensor]]] | None = None

    def entering(self, at: int) -> Any:
        def hook(block: nn.Module, args: object) -> None:
            weights = self._take(at)
            for name, parameter in self.units[at].items():
                parameter.data = weights[name]
            if at + 1 < len(self.units):
                self.ahead = at + 1, _reading().submit(self._read, at + 1, self.buffers[0])

        return hook

    def leaving(self, at: int) -> Any:
        def hook(block: nn.Module, args: object, answer: object) -> None:
            for parameter in self.units[at].values():
                parameter.data = placeholder(parameter.shape, parameter.dtype)
            if at + 1 == len(self.units):
                self.buffers = []

        return hook

    def _take(self, at: int) -> dict[str, Tensor]:
        """The matrices of block `at`; afterwards the first buffer is free."""
        if not self.buffers:
            self.buffers = [torch.empty(self.size, dtype=self.dtype, device=self.device) for _ in range(2)]
        ahead, self.ahead = self.ahead, None
        expected = ahead is not None and ahead[0] == at
        if ahead is not None:
            try:
                weights = ahead[1].result()
            except Exception:
                if expected:
                    raise
        if not expected:
            weights = self._read(at, self.buffers[0])
        self.buffers.reverse()
        return weights

    def _read(self, at: int, buffer: Tensor) -> dict[str, Tensor]:
        unit = self.units[at]
        sizes = [parameter.numel() for parameter in unit.values()]
        pieces = torch.split(buffer[: sum(sizes)], sizes)
        weights = {
            name: piece.view(parameter.shape)
            for (name, parameter), piece in zip(unit.items(), pieces, strict=True)
        }
        fill({name: self.entries[name] for name in unit}, weights, root=self.root)
        return weights


@cache
def _reading() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, "weights")
