"""Write docs/models.md from what tests and benchmarks measured: python scripts/make_models_page.py [--check]

Parity comes from benchmarks/results/parity.json, which the tests write:

    F=benchmarks/results/parity.json
    pytest tests/families/test_forms.py tests/families/test_keras_sd3.py --figures $F

Speed and memory come from the results of benchmarks/stable_diffusion.py, unets.py and blocks.py, where they
are there.
No figure on the page is typed. With --check nothing is written; the exit status is 1 if the page is not
current.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULTS, PAGE = ROOT / "benchmarks" / "results", ROOT / "docs" / "models.md"
MODELS = {
    "1.x": ("Stable Diffusion 1.x", "families/stable-diffusion.md"),
    "2.x": ("Stable Diffusion 2.x", "families/stable-diffusion.md"),
    "xl": ("Stable Diffusion XL", "families/stable-diffusion.md"),
    "3": ("Stable Diffusion 3", "families/stable-diffusion-3.md"),
    "3.5": ("Stable Diffusion 3.5", "families/stable-diffusion-3.md"),
    "flux-dev": ("FLUX.1 dev", "families/flux.md"),
    "flux-schnell": ("FLUX.1 schnell", "families/flux.md"),
}
# Column -> version -> where a result says it: file, then names.
SD3 = ("blocks", "sd3", "times diffusers float32", "float32")
FLUX = ("blocks", "flux", "times diffusers float32", "float32")
FILE = ("blocks", "memory", "pictura", "of_the_file")
FIGURES: dict[str, dict[str, tuple[str, ...]]] = {
    "speed": {"1.x": ("stable_diffusion", "step", "ratio", "pictura"),
              "2.x": ("unets", "2.x", "processor_ratio", "float32"),
              "xl": ("unets", "xl", "processor_ratio", "bfloat16"),
              "3": SD3, "3.5": SD3, "flux-dev": FLUX, "flux-schnell": FLUX},
    "memory": {"1.x": ("stable_diffusion", "decode", "memory", "pictura"),
               "2.x": ("unets", "2.x", "memory", "float32"), "xl": ("unets", "xl", "memory", "bfloat16")},
    "load": {"flux-dev": FILE, "flux-schnell": FILE},
}  # fmt: skip
HEAD = """# Models

<!-- Written by scripts/make_models_page.py from what tests and benchmarks measured; do not edit. -->

`pictura models list` names what is built in and what was downloaded, `pictura models show MODEL` says what is
known of any other. Which files are read, and what to do with them, is on [formats.md](formats.md).

Parity: the largest difference between our picture and that of diffusers (KerasHub's loop for its presets),
relative to the largest value, over all tests of that row: random weights, small sizes, float32, the same
seed, 8 steps (4 for KerasHub), guidance and a negative prompt.

Speed: of the network's evaluation at its real size (blocks of it for SD 3 and FLUX) in float32 (both in
bfloat16 for XL), times that of diffusers in the same run; of processor time for 2.x and XL. Memory: what that
takes at most (for 1.x, decoding a picture), of what diffusers takes. Loading: peak memory, of the file's
size. The machine and all else is in [performance.md](performance.md); a dash is not measured yet.

| model | form | parity | test | speed | memory | loading |
|---|---|---|---|---|---|---|
"""


def page() -> str:
    parity = json.loads((RESULTS / "parity.json").read_text())
    lines = []
    for version, (title, about) in MODELS.items():
        for form, found in sorted(parity.get(version, {}).items()):
            test = str(found["test"])
            name = f"[`{test.rpartition('::')[2]}`](../{test.partition('::')[0]})"
            cells = [f"[{title}]({about})", form, f"{found['difference']:.1e}", name]
            cells += [measured(places.get(version)) for places in FIGURES.values()]
            lines.append("| " + " | ".join(cells) + " |")
    return HEAD + "\n".join(lines) + "\n"


def measured(place: tuple[str, ...] | None) -> str:
    """The ratio that lies in a result; a dash where there is none, or one of tiny settings only."""
    path = RESULTS / f"{place[0]}.json" if place else RESULTS / "none"
    if place is None or not path.exists():
        return "-"
    content = json.loads(path.read_text())
    value: Any = {} if content["quick"] else content["results"]
    for name in place[1:]:
        value = value.get(name, {}) if isinstance(value, dict) else {}
    return f"{value:.2f} x" if isinstance(value, (int, float)) else "-"


if __name__ == "__main__":
    written = page()
    if "--check" not in sys.argv[1:]:
        PAGE.write_text(written)
    elif not PAGE.exists() or PAGE.read_text() != written:
        sys.exit(f"{PAGE} is not current: run python scripts/make_models_page.py")
