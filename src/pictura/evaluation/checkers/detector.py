"""A small trained detector of scenes: what a convolutional network, which never saw the template matcher,
finds in the pixels.

64 px in; on a grid of 8 x 8 points, 16 px of the canvas apart, it says whether an object is centred there
and which (240 objects, or a form that is none of them); and which of the eight colours, or none, lies
behind. `scripts/train_detector.py` trains it in minutes on renders with noise, blur, small shifts and
colour errors, and on forms made of pieces of two objects, which it must refuse.
"""

from __future__ import annotations

import functools
from importlib import resources

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load
from torch import Tensor, nn

from pictura.datasets.scenes.grammar import COLOURS, PATCH, things

from . import Sight, Sighting

SIZE = 64  # side of the network's input
NEITHER = 240  # class of a form that is no object; of the colours, 8
WIDTHS = (32, 48, 96, 96, 128, 128, 144)  # 3x3 convolutions, below
STRIDES = (2, 1, 2, 1, 2, 1, 1)
FEATURES = WIDTHS[-1]


class Detector(nn.Module):
    """(b, 3, 64, 64) in [-1, 1] -> centre logits (b, 8, 8), object logits (b, 241, 8, 8), colour (b, 9)."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for before, width, stride in zip((3, *WIDTHS), WIDTHS, STRIDES, strict=False):
            layers += [nn.Conv2d(before, width, 3, stride, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
        self.fine, self.coarse = nn.Sequential(*layers[:12]), nn.Sequential(*layers[12:])
        self.centre = nn.Conv2d(FEATURES, 1, 1)
        self.thing = nn.Conv2d(FEATURES, len(things()) + 1, 1)
        self.colour = nn.Conv2d(WIDTHS[3], len(COLOURS) + 2, 1)  # and how sure a point is to be background

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        fine = self.fine(pictures)  # 16 x 16: the last gaps between four objects still show
        coarse = self.coarse(fine)
        said = self.colour(fine).flatten(2)
        colour = (said[:, 1:] * said[:, :1].softmax(2)).sum(2)
        return self.centre(coarse).squeeze(1), self.thing(coarse), colour

    def features(self, pictures: Tensor) -> Tensor:
        """(b, 144): the last layer before the answers, averaged over the grid."""
        return self.coarse(self.fine(pictures)).mean((2, 3))  # type: ignore[no-any-return]


@functools.cache
def trained() -> Detector:
    """The shipped network, in float32 and evaluation mode."""
    net = Detector()
    stored = load(resources.files(__package__).joinpath("detector.safetensors").read_bytes())
    net.load_state_dict({name: value.float() for name, value in stored.items()}, strict=False)
    return net.eval().requires_grad_(False)


def as_input(images: NDArray[np.uint8]) -> Tensor:
    """(b, h, w, 3) uint8 of any one size -> (b, 3, 64, 64) in [-1, 1]."""
    if images.shape[1:3] != (SIZE, SIZE):
        images = np.stack(
            [np.asarray(Image.fromarray(i).resize((SIZE, SIZE), Image.Resampling.BOX)) for i in images]
        )
    return torch.from_numpy(images.copy()).permute(0, 3, 1, 2).float() / 127.5 - 1


def look(image: NDArray[np.uint8]) -> Sight:
    """What stands where in `image`, (h, w, 3) uint8 of any size."""
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(f"expected a picture (h, w, 3), got {image.shape}")
    with torch.no_grad():
        centre, thing, colour = trained()(as_input(image[None]))
    return read(centre[0], thing[0], colour[0])


def read(centre: Tensor, thing: Tensor, colour: Tensor) -> Sight:
    """One picture's answers, without the batch axis, as a `Sight`."""
    peaks = nn.functional.max_pool2d(centre[None], 3, 1, 1)[0]
    likely = thing.softmax(0)
    found = []
    for y, x in ((centre > 0) & (centre >= peaks)).nonzero().tolist():
        best = int(likely[:, y, x].argmax())
        certain = float(likely[best, y, x])
        known = best != NEITHER and certain >= 0.5
        found.append(Sighting(best if known else None, x * PATCH, y * PATCH, certain))
    return Sight(tuple(found), (*COLOURS, None)[int(colour.argmax())])
