"""IP-Adapter (Ye et al. 2023): attention to a picture beside that to the text, by keys of its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from pictura.nn.attention import Attention

__all__ = ["IPAdapter", "attending"]


class Projection(nn.Module):
    """A picture's embedding (b, e) -> tokens (b, n, d) like those of a text."""

    def __init__(self, embedded: int, count: int, width: int) -> None:
        super().__init__()
        self.count = count
        self.proj = nn.Linear(embedded, count * width)
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.proj(x).unflatten(-1, (self.count, -1)))


class Keys(nn.Module):
    def __init__(self, context: int, width: int) -> None:
        super().__init__()
        self.to_k_ip = nn.Linear(context, width, bias=False)
        self.to_v_ip = nn.Linear(context, width, bias=False)


class IPAdapter(nn.Module):
    """Parameters as in the files: `image_proj.*` and, for the n-th cross-attention, `ip_adapter.{2n + 1}.*`.

    shapes: of the file's tensors, from which all sizes are read.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        super().__init__()
        (context,) = shapes["image_proj.norm.weight"]
        rows, embedded = shapes["image_proj.proj.weight"]
        self.image_proj = Projection(embedded, rows // context, context)
        keys = sorted(
            (int(name.split(".")[1]), shape[0])
            for name, shape in shapes.items()
            if name.startswith("ip_adapter.") and name.endswith(".to_k_ip.weight")
        )
        self.ip_adapter = nn.ModuleDict({str(at): Keys(context, width) for at, width in keys})

    def keys(self, network: nn.Module) -> dict[str, Keys]:
        """For each cross-attention of a UNet its keys and values, by its name. Files count the way down
        first, then the way up, then the middle."""
        names = [module.name for module in network.modules() if isinstance(module, Attention)]
        crossing = [name for name in names if name.endswith("attn2")]
        order = ("down_blocks", "up_blocks", "mid_block")
        ordered = sorted(crossing, key=lambda name: order.index(name.partition(".")[0]))  # stable
        return {name: self.ip_adapter[str(2 * at + 1)] for at, name in enumerate(ordered)}  # type: ignore[misc]


def attending(keys: Mapping[str, Keys], tokens: Tensor, weight: float) -> Callable[..., Tensor]:
    """A `Reading.attend` that adds `weight` times the attention to `tokens` (b, n, d) to that to the text."""

    def attend(attention: Attention, x: Tensor, context: Tensor | None, size: tuple[int, int]) -> Tensor:
        q, k, v = attention.project(x, context)
        mixed = attention.mix(q, k, v)
        if context is not None and attention.name in keys:
            own = keys[attention.name]
            keyed, valued = attention.split(own.to_k_ip(tokens)), attention.split(own.to_v_ip(tokens))
            mixed = mixed + weight * attention.mix(q, keyed, valued)
        return attention.finish(mixed)

    return attend
