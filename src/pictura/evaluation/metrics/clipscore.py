"""CLIPScore (Hessel et al. 2021): how near picture and prompt lie in CLIP's space.

CLIP's weights are not shipped: name a local folder of a `transformers` CLIP model as the setting "clip".
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pictura.errors import FileError

from . import Metric, Sample


def measure(sample: Sample, rows: int = 16) -> float:
    """Mean of 100 max(cos(picture, prompt), 0)."""
    import torch
    from PIL import Image

    model, processor = _clip(Path(sample.settings["clip"]))
    total = 0.0
    for start in range(0, len(sample.pictures), rows):
        inputs = processor(
            text=list(sample.prompts[start : start + rows]),
            images=[Image.fromarray(p) for p in sample.pictures[start : start + rows]],
            return_tensors="pt",
            padding=True,
            truncation=True,
        )
        with torch.no_grad():
            answer = model(**inputs)
        cosine = torch.cosine_similarity(answer.image_embeds, answer.text_embeds)
        total += float(cosine.clamp(min=0).sum())
    return 100 * total / len(sample.pictures)


def _clip(folder: Path) -> tuple[Any, Any]:
    if not (folder / "config.json").is_file():
        raise FileError(f"{str(folder)!r} is no folder of a CLIP model; it has no config.json")
    from transformers import CLIPModel, CLIPProcessor

    model: Any = CLIPModel.from_pretrained(folder, local_files_only=True, use_safetensors=True)
    return model.eval(), CLIPProcessor.from_pretrained(folder, local_files_only=True)


METRIC = Metric(
    help="CLIPScore, 100 times the cosine of picture and prompt in CLIP's space",
    higher_is_better=True,
    measure=measure,
    needs=("clip",),
    least=1,
)
