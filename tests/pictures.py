"""Pictures as tests receive them: the bytes of a file, or those in base64."""

from __future__ import annotations

import base64
import io

import numpy as np
from PIL import Image


def opened(content: bytes | str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(content) if isinstance(content, str) else content))


def pixels(content: bytes | str) -> np.ndarray:
    return np.asarray(opened(content).convert("RGB"))
