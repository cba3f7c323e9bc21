"""What a run leaves to look at and to use: sample grids and a preset folder, of the averaged weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from pictura.engine import Engine
from pictura.families import Family
from pictura.formats import preset
from pictura.formats.networks import tensors
from pictura.formats.writing import live_digest
from pictura.request import Request


@torch.no_grad()
def averaged(family: Family, average: Mapping[str, Tensor]) -> Family:
    """A family like `family` that draws with `average` ("network.name" -> value)."""
    copy = type(family).from_config(family.config())
    for name, value in tensors(copy.networks()).items():
        value.data.copy_(average[name])
    return copy


def grid(family: Family, prompts: Sequence[str], path: Path, columns: int = 8) -> None:
    """One picture a prompt, seeds 0, 1, ..., with the family's defaults; written whole to `path`."""
    engine = Engine(family, rows=16)
    requests = [Request(prompt=p, seed=i).completed(family.defaults()) for i, p in enumerate(prompts)]
    tickets = [engine.add(family.run(request, lambda level, x0: None)) for request in requests]
    engine.run()
    pictures = []
    for ticket in tickets:
        if ticket.result is None:
            raise ticket.error or RuntimeError("a picture ended without result")
        pixels = ((ticket.result[0].permute(1, 2, 0) + 1) * 127.5).round().clamp(0, 255)
        pictures.append(Image.fromarray(pixels.byte().numpy()))
    width, height = pictures[0].size
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (width * min(columns, len(pictures)), height * rows))
    for i, picture in enumerate(pictures):
        sheet.paste(picture, (i % columns * width, i // columns * height))
    temporary = path.with_suffix(".part")
    sheet.save(temporary, "PNG")
    temporary.replace(path)


def export(family: Family, folder: Path, provenance: Mapping[str, Any], *, half: bool = True) -> None:
    """Write `family` as a preset folder, replacing the one there. `half` stores parameters as bfloat16;
    buffers, which hold measured constants, keep their precision."""
    live = tensors(family.networks())
    stored = {
        name: value.detach().to(torch.bfloat16) if half and value.requires_grad else value.detach()
        for name, value in live.items()
    }
    config = preset.Config(
        family=family.name, architecture=family.config(), defaults=family.defaults(), provenance=provenance
    )
    count = sum(value.numel() for value in live.values())
    card = preset.card(folder.name, config, count, live_digest(stored))
    preset.write(folder, config, stored, card, overwrite=True)
