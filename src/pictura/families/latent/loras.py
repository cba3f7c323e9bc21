"""LoRAs of a request: read once, checked against the model, and applied while its networks are asked."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor, nn

from pictura.attachments import open_file
from pictura.engine import Ask, Program
from pictura.errors import CheckpointError, OtherModel, ParameterError, shown
from pictura.formats import lora, safetensors
from pictura.formats.lora import Change, Layer
from pictura.formats.rules import Rule
from pictura.nn.lora import Delta, Fused, Hadamard, Kronecker, Low, Magnitude, Placed, fuse, injected, tucker

__all__ = ["Loras", "With"]

_KEYS = {"path", "sha256", "weight"}


class With(NamedTuple):
    """A variant of a question: the LoRAs (digest, weight) it is asked with, and the network's own variant."""

    loras: tuple[tuple[str, float], ...]
    inner: Hashable


class Changeable(Protocol):
    """What is needed of a family."""

    parts: dict[str, nn.Module]

    def originals(self) -> Mapping[str, Iterable[Rule]]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A file's deltas: by component, with the layer's name."""

    deltas: Mapping[str, tuple[tuple[str, Delta], ...]]


class Loras:
    """The LoRAs that a family has read."""

    def __init__(self, family: Changeable) -> None:
        self._family = family
        self._known: dict[str, tuple[Layer, ...]] | None = None
        self._read: dict[str, _Read] = {}

    def check(self, records: object) -> None:
        """ParameterError for what is no list of LoRAs, CheckpointError for files that do not fit."""
        self.key(records)

    def key(self, records: object) -> tuple[tuple[str, float], ...]:
        """What tells these LoRAs from others; reads those that are new."""
        found = []
        for path, digest, weight in _listed(records):
            if digest not in self._read:
                self._read[digest] = self._load(path)
            if weight:
                found.append((digest, weight))
        return tuple(found)

    def tagged(self, program: Program, records: object) -> Program:
        """`program` with its questions to networks asked with these LoRAs."""
        key = self.key(records)
        if not key:
            return (yield from program)
        try:
            asks = next(program)
            while True:
                try:
                    answers = yield tuple(self._tagged(ask, key) for ask in asks)
                except Exception as error:
                    asks = program.throw(error)
                else:
                    asks = program.send(answers)
        except StopIteration as done:
            picture: Tensor = done.value
            return picture
        finally:
            program.close()

    def applied(self, net: str, key: tuple[tuple[str, float], ...]) -> AbstractContextManager[None]:
        """While this lasts the network called `net` answers with the LoRAs."""
        changes = list(self._placed(net, key))
        return injected(self._family.parts[net], changes) if changes else nullcontext()

    def fuse(self, records: object) -> Fused:
        """Add LoRAs to the weights until the answer's `remove()`, which restores every bit."""
        key = self.key(records)
        return fuse(self._family.parts, {net: list(self._placed(net, key)) for net in self._family.parts})

    def _tagged(self, ask: Ask, key: tuple[tuple[str, float], ...]) -> Ask:
        touched = any(self._read[digest].deltas.get(ask.net) for digest, _ in key)
        return replace(ask, variant=With(key, ask.variant)) if touched else ask

    def _placed(self, net: str, key: tuple[tuple[str, float], ...]) -> Iterator[Placed]:
        for digest, weight in key:
            for name, delta in self._read[digest].deltas.get(net, ()):
                yield Placed(name, delta, weight)

    def _load(self, path: Path) -> _Read:
        if path.suffix != ".safetensors":
            raise ParameterError(
                f"lora {shown(path.name)} is no safetensors file, and others can hold programs; convert it",
                parameter="lora",
            )
        if self._known is None:
            layers = {name: list(_layers(part)) for name, part in self._family.parts.items()}
            self._known = lora.spellings(layers, self._family.originals())
        deltas: dict[str, list[tuple[str, Delta]]] = {}
        for change in lora.read(path, self._known):
            tensors = {role: _tensor(role, entry) for role, entry in change.tensors.items()}
            for layer in change.layers:
                weight = self._family.parts[layer.component].get_submodule(layer.name).weight
                assert isinstance(weight, Tensor)
                delta = _delta(tensors, layer, change, path)
                _fits(delta, weight, layer, path)
                deltas.setdefault(layer.component, []).append((layer.name, delta))
        return _Read(deltas={name: tuple(found) for name, found in deltas.items()})


def _listed(records: object) -> Iterator[tuple[Path, str, float]]:
    if records is None:
        return
    if isinstance(records, Mapping):
        records = (records,)
    if not isinstance(records, (tuple, list)):
        raise _wrong(records)
    for record in records:
        if not isinstance(record, Mapping) or "sha256" not in record or set(record) - _KEYS:
            raise _wrong(records)
        weight = record.get("weight", 1.0)
        if isinstance(weight, bool) or not isinstance(weight, (int, float)) or abs(weight) > 100:
            raise ParameterError(f"the weight of a lora is {shown(weight)}; give -100..100", parameter="lora")
        place = open_file({name: record[name] for name in ("path", "sha256") if name in record}, "lora")
        yield place, str(record["sha256"]), float(weight)


def _wrong(given: object) -> ParameterError:
    return ParameterError(
        f"lora is {shown(given)}; give a list of {{'path': FILE, 'weight': NUMBER}}", parameter="lora"
    )


def _layers(part: nn.Module) -> Iterator[str]:
    for name, module in part.named_modules():
        if isinstance(module, (nn.Linear, nn.Conv2d)):
            yield name


def _tensor(role: str, entry: safetensors.Entry) -> Tensor:
    tensor = torch.empty(entry.shape, dtype=safetensors.torch_dtype(entry.dtype))
    safetensors.fill({role: entry}, {role: tensor})
    return tensor


def _delta(tensors: Mapping[str, Tensor], layer: Layer, change: Change, path: Path) -> Delta:
    """The change of one layer; of several that lie in one of the file's, its rows."""
    alpha = float(tensors["alpha"]) if "alpha" in tensors and tensors["alpha"].numel() == 1 else None
    try:
        delta = _kind(tensors, alpha)
        if layer.share is not None:
            delta = _rows(delta, layer.share)
    except (ValueError, KeyError, RuntimeError, IndexError, TypeError, ZeroDivisionError) as error:
        message = f"lora {shown(path.name)}: the tensors of {shown(change.name)} do not fit together"
        raise CheckpointError(message) from error
    return Magnitude(delta, tensors["magnitude"]) if "magnitude" in tensors else delta


def _kind(tensors: Mapping[str, Tensor], alpha: float | None) -> Delta:
    if "down" in tensors:
        rank = len(tensors["down"])
        return Low(
            tensors["down"], tensors["up"], 1.0 if alpha is None else alpha / rank, tensors.get("core")
        )
    if "hada_w1_a" in tensors:
        rank = len(tensors["hada_w1_b"])
        pairs = [(tensors[f"hada_w{i}_a"], tensors[f"hada_w{i}_b"]) for i in (1, 2)]
        tucked = "hada_t1" in tensors or "hada_t2" in tensors
        cores = (tensors["hada_t1"], tensors["hada_t2"]) if tucked else None
        return Hadamard(pairs[0], pairs[1], 1.0 if alpha is None else alpha / rank, cores)
    # As LyCORIS has it: where both factors are whole there is no rank, and alpha says nothing.
    rank = next((len(tensors[name]) for name in ("lokr_w2_b", "lokr_w1_b") if name in tensors), 0)
    factor = alpha / rank if alpha is not None and rank else 1.0
    return Kronecker(_factor(tensors, "lokr_w1"), _factor(tensors, "lokr_w2"), factor)


def _factor(tensors: Mapping[str, Tensor], name: str) -> Tensor:
    if name in tensors:
        return tensors[name]
    a, b = tensors[f"{name}_a"], tensors[f"{name}_b"]
    if (core := tensors.get(name.replace("_w", "_t"))) is not None:
        return tucker(core, a, b)
    return (a.float() @ b.float().flatten(1)).view(len(a), *b.shape[1:])


def _rows(delta: Delta, share: tuple[int, int, int]) -> Delta:
    first, last, of = share
    if not isinstance(delta, Low):
        raise ValueError("rows can be taken of a LoRA only")
    unit, left = divmod(len(delta.up), of)
    if left:
        raise ValueError("the rows cannot be dealt out")
    return replace(delta, up=delta.up[first * unit : last * unit])


def _fits(delta: Delta, weight: Tensor, layer: Layer, path: Path) -> None:
    """OtherModel unless the change has the layer's shape; nothing is computed."""
    blank = torch.empty(weight.shape, device="meta")
    try:
        shape = _on_meta(delta).full(blank).shape
    except RuntimeError:
        shape = None
    if shape != weight.shape:
        raise OtherModel(
            f"lora {shown(path.name)} does not fit {layer.component}.{layer.name}, which has shape "
            f"{list(weight.shape)}; it belongs to another version of the model"
        )


def _on_meta(delta: Any) -> Delta:
    """The same delta without its numbers."""

    def bare(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to("meta")
        if isinstance(value, tuple):
            return tuple(map(bare, value))
        return _on_meta(value) if hasattr(value, "full") else value

    return type(delta)(*(bare(getattr(delta, name)) for name in delta.__slots__))  # type: ignore[no-any-return]
