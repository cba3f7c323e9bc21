"""What lies in a place: a folder of ours, one of diffusers', one of KerasHub's, or single files of weights.

A layout is told by the files that are there, never by a name, and says what they say: configurations,
tokenizers and the descriptions of tensors by component. No tensor is read and nothing is judged here;
families do that in their `checkpoint.py`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from pictura.errors import CheckpointError, FileError, PicturaError, PresetError, shown
from pictura.formats import safetensors
from pictura.formats.reading import opened, read_json
from pictura.formats.safetensors import Entry
from pictura.formats.scaled import unscaled

__all__ = ["COMPONENTS", "CONFIG", "INDEX", "STEMS", "TOKENIZERS", "Layout", "open_layout"]

INDEX, CONFIG = "model_index.json", "config.json"
STEMS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model",
         "transformer": "diffusion_pytorch_model", "text_encoder": "model", "text_encoder_2": "model",
         "text_encoder_3": "model"}  # fmt: skip
COMPONENTS = tuple(STEMS)
TOKENIZERS = ("tokenizer", "tokenizer_2", "tokenizer_3")
TOKENIZER_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "spiece.model", "tokenizer_config.json",
                   "special_tokens_map.json", "added_tokens.json")  # fmt: skip
_KERAS_TOKENIZERS = {"tokenizer": "clip_l_tokenizer", "tokenizer_2": "clip_g_tokenizer"}
PICKLES = (".ckpt", ".bin", ".pt", ".pth", ".pkl")


@dataclass(frozen=True)
class Layout:
    """kind: "pictura", "diffusers", "keras" or "files". No link in it may leave `root`.

    index: what model_index.json or config.json says. single: the files of kind "files".
    variant: spelling of the weights to take where a folder holds several, such as "fp16".
    """

    kind: str
    path: Path
    root: Path
    index: Mapping[str, Any] = field(default_factory=dict)
    single: tuple[Path, ...] = ()
    variant: str | None = None

    @cached_property
    def files(self) -> Mapping[Path, Mapping[str, Entry]]:
        """The tensors of each single file."""
        return {
            path: unscaled(safetensors.header(path, root=self.root), root=self.root) for path in self.single
        }

    def has(self, component: str) -> bool:
        """Whether a folder of diffusers says that it has this component."""
        if self.kind != "diffusers":
            return False
        said = self.index.get(component, [None] if self.index else "unknown")
        absent = isinstance(said, list) and not any(said)
        return not absent and (self.path / component).is_dir()

    def config(self, component: str) -> dict[str, Any] | None:
        """The component's own configuration; None where it has none."""
        if self.kind == "pictura":
            known = self.index.get("architecture")
            own = known.get(component) if isinstance(known, dict) else None
            return own if isinstance(own, dict) else None
        if not self.has(component):
            return None
        self._plain(component)
        for name in (CONFIG, f"{component}_config.json"):
            if (self.path / component / name).exists():
                values = read_json(self.path / component / name, root=self.root)
                if "auto_map" in values:
                    raise CheckpointError(
                        f"{str(self.path / component / name)!r} names code to run (auto_map), which "
                        "Pictura never "
                        "does; get the model in a plain form"
                    )
                return values
        return None

    def weights(self, component: str = "model") -> dict[str, Entry]:
        """The component's tensors; FileError where it has none that can be read."""
        if self.kind == "pictura":
            return safetensors.weights(self.path, root=self.root)
        folder = self.path / component
        stem = STEMS.get(component, "model")
        for variant in dict.fromkeys((self.variant, None, *self._variants(folder, stem))):
            if _exists(folder, stem, variant):
                return safetensors.weights(folder, stem, root=self.root, variant=variant)
        pickled = sorted(path.name for path in folder.glob("*") if path.suffix in PICKLES)
        if pickled:
            raise _pickle(folder / pickled[0])
        raise FileError(f"{str(folder)!r} has no {stem}.safetensors; get the model again with its weights")

    def tokenizer(self, component: str) -> dict[str, Path]:
        """The files of a tokenizer by their usual names."""
        if self.kind == "pictura":
            own = self.path / f"{component}.json"
            return {"tokenizer.json": own} if own.exists() else {}
        if self.kind == "keras":
            name = _KERAS_TOKENIZERS.get(component, component)
            assets, config = self.path / "assets" / name, self.path / f"{name}.json"
            files = {"vocab.json": assets / "vocabulary.json", "merges.txt": assets / "merges.txt"}
            if not all(path.exists() for path in files.values()):
                return {}
            return files | ({"keras.json": config} if config.exists() else {})
        if self.kind == "files":
            near = (self.path if self.path.is_dir() else self.path.parent) / component
            return _tokenizer_files(near)
        return _tokenizer_files(self.path / component) if self.has(component) else {}

    def read(self, path: Path) -> bytes:
        """A small file of this layout as it is."""
        with opened(path, self.root) as file:
            return file.read()

    def whole(self, variant: str | None = None) -> bool:
        """Whether every component of a diffusers folder has its weights in this very spelling."""
        parts = [name for name in COMPONENTS if self.has(name)] if self.kind == "diffusers" else []
        return all(_exists(self.path / name, STEMS[name], variant) for name in parts)

    def variants(self) -> tuple[str, ...]:
        """Every variant that some component has."""
        found = {v for name, stem in STEMS.items() for v in self._variants(self.path / name, stem)}
        return tuple(sorted(found))

    def _variants(self, folder: Path, stem: str) -> list[str]:
        names = sorted(path.name for path in folder.glob(f"{stem}.*"))
        found = []
        for name in names:
            parts = name.removeprefix(f"{stem}.").split(".")
            if len(parts) == 2 and parts[1] == "safetensors":
                found.append(parts[0].partition("-")[0])
            elif parts[:2] == ["safetensors", "index"] and len(parts) == 4:
                found.append(parts[2])
        return list(dict.fromkeys(found))

    def _plain(self, component: str) -> None:
        """CheckpointError where the index says that a component is a class of the folder's own code."""
        said = self.index.get(component)
        if isinstance(said, list) and said and said[0] not in ("diffusers", "transformers", None):
            raise CheckpointError(
                f"{str(self.path / INDEX)!r} names code to run for its {component} ({shown(said)}), which "
                "Pictura "
                "never does; get the model in a plain form"
            )


def open_layout(path: Path, *, root: Path | None = None, variant: str | None = None) -> Layout:
    """The layout of `path`, a folder or a file.

    PresetError where nothing is recognised, CheckpointError where the files can be seen to be unsound.
    """
    root = (path if path.is_dir() else path.parent) if root is None else root
    if not path.is_dir():
        return Layout("files", path, root, single=(_weights_file(path, root),))
    if (path / INDEX).exists():
        index = read_json(path / INDEX, root=root)
        _runs_no_code(index, path / INDEX)
        found = Layout("diffusers", path, root, index, variant=variant)
        if variant is not None and variant not in found.variants():
            known = ", ".join(found.variants()) or "none"
            raise PresetError(f"{str(path)!r} has no variant {shown(variant)}; it has: {known}")
        return found
    if (path / CONFIG).exists():
        try:
            index = read_json(path / CONFIG, root=root)
        except PicturaError as error:
            raise PresetError(str(error)) from error
        return Layout("keras" if "registered_name" in index else "pictura", path, root, index)
    if any((path / component).is_dir() for component in (*COMPONENTS, "scheduler", *TOKENIZERS)):
        return Layout("diffusers", path, root, variant=variant)
    single = tuple(sorted(path.glob("*.safetensors")))
    if single:
        return Layout("files", path, root, single=single)
    pickled = sorted(found for found in path.glob("*") if found.suffix in PICKLES)
    if pickled:
        raise _pickle(pickled[0])
    raise PresetError(
        f"folder {str(path)!r} has no {CONFIG}, no {INDEX} and no .safetensors file, so it is no preset"
    )


def _weights_file(path: Path, root: Path) -> Path:
    """`path` if it begins as a safetensors file may."""
    with opened(path, root) as file:
        start = file.read(8)
        size = path.stat().st_size
    if path.suffix in PICKLES and not 0 < int.from_bytes(start, "little") < size:
        raise _pickle(path)
    if start.startswith(b"GGUF"):
        raise CheckpointError(
            f"{str(path)!r} is a GGUF file; Pictura reads safetensors, so get it in that form"
        )
    if start.startswith(b"\x89HDF"):
        raise CheckpointError(f"{str(path)!r} is an HDF5 file; give the KerasHub folder it belongs to")
    return path


def _tokenizer_files(folder: Path) -> dict[str, Path]:
    return {name: folder / name for name in TOKENIZER_FILES if (folder / name).exists()}


def _exists(folder: Path, stem: str, variant: str | None) -> bool:
    return any((folder / name).exists() for name in safetensors.names(stem, variant))


def _runs_no_code(index: Mapping[str, Any], path: Path) -> None:
    name = index.get("_class_name")
    if name is not None and not isinstance(name, str):
        raise CheckpointError(
            f"{str(path)!r} names code to run ({shown(name)}), which Pictura never does; get the model in "
            "a plain form"
        )


def _pickle(path: Path) -> CheckpointError:
    return CheckpointError(
        f"{str(path)!r} is a pickle, which can run any code when opened; convert it to safetensors"
    )
