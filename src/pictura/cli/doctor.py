"""`pictura doctor`: what this machine offers, what Pictura chose, and whether its models are whole."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from pictura.cli.options import LineOption
from pictura.errors import PicturaError

# What each extra brings; the first package stands for it.
EXTRAS = {
    "local": "torch",
    "server": "fastapi",
    "postgres": "psycopg",
    "train": "accelerate",
    "diffusers": "diffusers",
    "eval": "torchmetrics",
    "data": "pyarrow",
    "ray": "ray",
    "keras": "h5py",
    "c2pa": "c2pa-python",
    "distilabel": "distilabel",
    "dashai": "dashai",
}
FEATURES = ("avx2", "avx512f", "avx512_bf16", "amx_bf16", "asimd", "sve", "bf16")


def doctor(as_json: LineOption = False) -> int:
    """Look at this machine and at the built-in models; exit with 1 if one is damaged."""
    facts: dict[str, Any] = dict(examined())
    if as_json:
        print(json.dumps(facts))
    else:
        for name, value in facts.items():
            for key, inner in value.items() if isinstance(value, dict) else ((None, value),):
                print(f"{name}: {inner}" if key is None else f"{name}: {key}: {inner}")
    return 1 if any(state.startswith("damaged") for state in facts["models"].values()) else 0


def examined() -> Iterator[tuple[str, Any]]:
    """Pairs of a name and a text, or a mapping of texts."""
    from pictura import __version__

    yield "pictura", __version__
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}"
    yield "cpu", processor()
    yield "memory", memory()
    yield "device", device()
    yield "extras", {name: version(package) for name, package in EXTRAS.items()}
    yield "fonts", fonts()
    yield "terminal", terminal()
    yield "history", history()
    yield "models", models()


def processor() -> str:
    """Cores that this process may use, and the instructions that matter for speed."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    flags: set[str] = set()
    if os.path.exists("/proc/cpuinfo"):
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.startswith(("flags", "Features")):
                    flags = set(line.partition(":")[2].split())
                    break
    found = [feature for feature in FEATURES if feature in flags]
    return f"{cores} cores, {' '.join(found) or 'no special instructions found'}"


def memory() -> str:
    """Free and whole main memory, in GiB."""
    try:
        page, whole = os.sysconf("SC_PAGE_SIZE"), os.sysconf("SC_PHYS_PAGES")
        free = page * os.sysconf("SC_AVPHYS_PAGES")
        if os.path.exists("/proc/meminfo"):
            with open("/proc/meminfo", encoding="ascii") as file:
                sizes = {line.split(":")[0]: int(line.split()[1]) for line in file}
            free = (
                sizes.get("MemAvailable", free // 1024) * 1024
            )  # what caches would give back counts as free
    except (ValueError, OSError, AttributeError):
        return "unknown"
    return f"{free / 2**30:.1f} GiB free of {page * whole / 2**30:.1f} GiB"


def device() -> dict[str, str]:
    """What would compute, in which precision, and why; by a measurement of a fraction of a second."""
    if version("torch") == "not installed":
        return {"device": "none: torch is not installed; pip install 'pictura[local]' brings it"}
    from pictura.device import facts

    return {name: str(value) for name, value in facts().items()}


def version(package: str) -> str:
    """The installed version of a package, or that there is none."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def fonts() -> dict[str, str]:
    """The pictures of objects that the scenes are drawn from (shipped), and the font of labels."""
    from PIL import features

    from pictura.datasets.scenes.render import sprites

    return {
        "objects": f"{len(sprites())} sprites cut from Noto Color Emoji, shipped",
        "labels": "Pillow's own, scalable" if features.check("freetype2") else "Pillow's own, one size only",
    }


def terminal() -> str:
    """How pictures would be shown."""
    from pictura.cli.show import protocol

    how = protocol(sys.stderr)
    return "no pictures are drawn" if how == "none" else f"pictures are drawn by {how}"


def history() -> str:
    """Where what is drawn is kept, and how much there is."""
    from pictura.history import OFF, History

    if os.environ.get("PICTURA_HISTORY", "").lower() in OFF:
        return "off, as PICTURA_HISTORY says"
    kept = History()
    if not os.environ.get("PICTURA_DATABASE") and not (kept.folder / "history.sqlite").exists():
        return f"none yet; it will be in {kept.folder}"
    try:
        with kept:
            return f"{kept.count()} pictures in {kept.folder}"
    except PicturaError as error:
        return f"cannot be used: {error}"


def models() -> dict[str, str]:
    """Each built-in model: whole, or what is wrong with it."""
    from pictura import presets

    return {name: state(name) for name, preset in presets.presets().items() if preset.folder is not None}


def state(name: str) -> str:
    """Whether the weights of a model are what its preset promises, by their SHA-256."""
    from pictura.cli.described import described

    try:
        facts = described(name)
    except (PicturaError, ImportError) as error:
        return f"damaged: {error}"
    if facts["verified"] is False:
        return f"damaged: its weights have the digest {facts['digest']}, not the one promised"
    size = f"{facts['parameters'] / 1e6:.1f} M parameters, {facts['bytes'] / 1e6:.1f} MB"
    return f"{size}, {'digest verified' if facts['verified'] else 'no digest is promised'}"
