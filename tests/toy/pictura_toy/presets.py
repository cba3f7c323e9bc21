"""The toy's presets. Its weights are made by the tests that need them."""

from __future__ import annotations

from pictura.families import Preset

PRESETS = {
    "toy": Preset(
        name="toy",
        family="toy",
        folder="weights",
        description="plain colours on 8x8 pixels, untrained",
        licence="Apache-2.0",
    )
}
