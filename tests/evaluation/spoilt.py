"""Pictures as they are not drawn but met: with noise, out of focus."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter


def noisy(image: np.ndarray) -> np.ndarray:
    noise = np.random.default_rng(image.sum()).normal(0, 12, image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


def blurred(image: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(image).filter(ImageFilter.GaussianBlur(1)))
