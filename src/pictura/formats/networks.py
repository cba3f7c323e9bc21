"""Networks and their tensors: built without memory, compared with a file's header, then filled from it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pictura.formats.safetensors import Entry, check, fill
from pictura.formats.streaming import absent, matrices, placeholder, stream

__all__ = ["build", "move", "stored_as", "summary", "tensors"]


class _Networks(Protocol):
    def networks(self) -> dict[str, nn.Module]: ...


F = TypeVar("F", bound=_Networks)
_LARGE = 2**20  # numbers in a tensor


def tensors(networks: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    """All that is saved, as "<network>.<parameter>"; a tensor that several names share comes once."""
    found: dict[str, Tensor] = {}
    seen: set[int] = set()
    for network, module in networks.items():
        for name, tensor in module.state_dict(keep_vars=True).items():
            if id(tensor) not in seen:
                seen.add(id(tensor))
                found[f"{network}.{name}"] = tensor
    return found


def build(
    make: Callable[[], F],
    entries: Mapping[str, Entry] | None,
    *,
    dtype: torch.dtype = torch.float32,
    device: torch.device | str = "cpu",
    root: Path | None = None,
    streamed: bool = False,
) -> F:
    """A family from `make`, its networks filled from `entries` (left at random when None), in `dtype`.

    streamed: keep in memory only what the networks cannot read block by block, see `formats.streaming`.

    `make` is first called on the meta device, where a network takes no memory: names, shapes and kinds are
    compared there, and CheckpointError names the first that does not fit before any weight is read.
    """
    if entries is None:
        family = make()
    else:
        with torch.device("meta"), _Shapes():
            wanted = tensors(make().networks())
        check(entries, wanted)
        with _Unset():
            family = make()
        owned = family.networks()
        later = {name for _, unit in matrices(owned) for name in unit} if streamed else set()
        for name, tensor in tensors(owned).items():
            # Not `to`: that would read memory which nobody has written.
            kind = _cast(tensor, dtype)
            if name in later:
                tensor.data = placeholder(tensor.shape, kind)
            else:
                tensor.data = torch.empty(tensor.shape, dtype=kind, device=device)
    for module in family.networks().values():
        move(module, dtype=dtype, device=device)
    if entries is not None:
        now = {name: tensor for name, tensor in tensors(owned).items() if name not in later}
        fill(entries, now, root=root)
        if later:
            stream(owned, entries, device=device, root=root)
    return family


def move(
    module: nn.Module, *, dtype: torch.dtype | None = None, device: torch.device | str | None = None
) -> None:
    """Cast floating-point parameters and buffers to `dtype` and bring everything to `device`, in place.

    Parameters stay the same objects, so that optimizers and shared weights go on working.
    """
    for tensor in [*module.parameters(), *module.buffers()]:
        kind = _cast(tensor, dtype)
        if absent(tensor):
            tensor.data = placeholder(tensor.shape, kind)
        else:
            tensor.data = tensor.data.to(device=device, dtype=kind)


def stored_as(live: Mapping[str, Tensor], dtypes: Mapping[str, torch.dtype]) -> dict[str, Tensor]:
    """`live` in the dtypes it was stored in, wherever that loses nothing.

    Weights kept as bfloat16 and computed in float32 are written as bfloat16 again, unless they were trained.
    """
    return {name: _narrowed(tensor.detach(), dtypes.get(name, tensor.dtype)) for name, tensor in live.items()}


def summary(networks: Mapping[str, nn.Module]) -> Iterator[tuple[str, str, int]]:
    """(network, class, parameters) for each network, then for each of its direct parts."""
    for name, module in networks.items():
        yield name, type(module).__name__, _count(module)
        for part, child in module.named_children():
            yield f"{name}.{part}", type(child).__name__, _count(child)


def _cast(tensor: Tensor, dtype: torch.dtype | None) -> torch.dtype:
    return dtype if dtype is not None and tensor.is_floating_point() else tensor.dtype


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _narrowed(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    if dtype == tensor.dtype:
        return tensor
    narrow = tensor.to(dtype)
    return narrow if torch.equal(narrow.to(tensor.dtype), tensor) else tensor


class _Shapes(TorchFunctionMode):
    """On the meta device: drawing and scaling give shapes only, without the machinery behind it.

    torch computes them there in Python, and imports its compiler for it, which takes longer than a load.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in (torch.randn, torch.rand):
            given.pop("generator", None)
            return torch.empty(*args, **given)
        if func is torch.eye and args:
            return torch.empty(args[0], args[-1], **given)
        if getattr(func, "__name__", "") in ("mul", "div") and len(args) == 2:
            x, factor = args
            if isinstance(factor, float) and x.is_meta and x.is_floating_point():
                return x
        return func(*args, **given)


class _Unset(TorchFunctionMode):
    """Parameters keep whatever their memory holds: drawing weights that a file replaces would be a waste, and
    so would be memory for large ones.

    Everything else, buffers and tables that are no parameters, is computed as usual.
    """

    def __torch_function__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        if func is torch.empty:
            shape = func(*args, **{**(kwargs or {}), "device": "meta"})
            if shape.numel() >= _LARGE:
                return placeholder(shape.shape, shape.dtype)
        name = getattr(func, "__name__", "")
        in_place = name.endswith("_") and not name.endswith("__") and name != "requires_grad_"
        target = args[0] if args else (kwargs or {}).get("tensor")  # torch.nn.init passes it by name
        if in_place and isinstance(target, nn.Parameter):
            return target
        return func(*args, **(kwargs or {}))
