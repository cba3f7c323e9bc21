"""Wrong and hostile files: one sentence naming file and tensor, within a second and 50 MB, in a process that
is held to both."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save, save_file

import pictura
from pictura.converting import convert

Written = Callable[[str], Path]
RUNNER = Path(__file__).with_name("hostile.py")
WEIGHTS = "diffusion_pytorch_model.safetensors"
SECONDS, MEMORY = 1.0, 50 * 2**20


def judged(how: str, places: list[Path]) -> list[dict[str, Any]]:
    source = Path(pictura.__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(RUNNER), how, *map(str, places)],
        env=environment, capture_output=True, text=True, timeout=300, check=True,
    )  # fmt: skip
    return [json.loads(line) for line in done.stdout.splitlines()]


def raw(header: object, body: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + body


def changed(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def cut(path: Path, bytes_left: int) -> None:
    os.truncate(path, path.stat().st_size - bytes_left if bytes_left < 0 else bytes_left)


def entry(shape: list[int], start: int, end: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}


def sharded(folder: Path, where: str) -> None:
    (folder / "unet" / WEIGHTS).rename(folder / "unet" / "part.safetensors")
    index = {"weight_map": {name: where for name in load_file(folder / "unet" / "part.safetensors")}}
    (folder / "unet" / f"{WEIGHTS}.index.json").write_text(json.dumps(index))


def linked(path: Path, target: Path) -> None:
    shutil.move(path, target)
    path.symlink_to(target)


def pickled(folder: Path) -> None:
    (folder / "unet" / WEIGHTS).unlink()
    (folder / "unet" / "diffusion_pytorch_model.bin").write_bytes(pickle.dumps({"w": [1.0]}))


def other(folder: Path) -> None:
    (folder / "model_index.json").unlink()
    changed(folder / "unet" / "config.json", _class_name="Kandinsky3UNet")


def renamed(folder: Path) -> None:
    path = folder / "unet" / WEIGHTS
    tensors = load_file(path)
    tensors["conv_in.wait"] = tensors.pop("conv_in.weight")
    save_file(tensors, path)


# name -> (what is done to a sound folder of Stable Diffusion 1, the error's kind, what it says)
FOLDERS: dict[str, tuple[Callable[[Path], object], str, str]] = {
    "truncated": (lambda f: cut(f / "unet" / WEIGHTS, -100), "CheckpointError", f"{WEIGHTS}' is not a sound"),
    "empty": (lambda f: cut(f / "unet" / WEIGHTS, 0), "CheckpointError", "too few for its header"),
    "petabytes": (
        lambda f: (f / "unet" / WEIGHTS).write_bytes(raw({"w": entry([2**25, 2**25], 0, 2**52)}, b"1234")),
        "CheckpointError",
        "tensors end at byte",
    ),
    "overlapping": (
        lambda f: (f / "unet" / WEIGHTS).write_bytes(
            raw({"w": entry([1], 0, 4), "v": entry([1], 0, 4)}, b"1234")
        ),
        "CheckpointError",
        "overlaps another",
    ),
    "twice": (
        lambda f: (f / "unet" / WEIGHTS).write_bytes(
            raw(
                b'{"w":'
                + json.dumps(entry([1], 0, 4)).encode()
                + b',"w":'
                + json.dumps(entry([1], 0, 4)).encode()
                + b"}",
                b"1234",
            )
        ),
        "CheckpointError",
        "the name 'w' comes twice",
    ),
    "twice in a configuration": (
        lambda f: (f / "unet" / "config.json").write_text('{"a": 1, "a": 2}'),
        "CheckpointError",
        "the name 'a' comes twice",
    ),
    "long header": (
        lambda f: (f / "unet" / WEIGHTS).write_bytes((2**30).to_bytes(8, "little") + b"{" * 1000),
        "CheckpointError",
        "too few for its header",
    ),
    "nested": (
        lambda f: (f / "model_index.json").write_text("[" * 100_000),
        "CheckpointError",
        "is not JSON",
    ),
    "pickle": (pickled, "CheckpointError", "diffusion_pytorch_model.bin' is a pickle"),
    "pickle in disguise": (
        lambda f: (f / "unet" / WEIGHTS).write_bytes(pickle.dumps({"w": [1.0]})),
        "CheckpointError",
        "is a pickle",
    ),
    "no weights": (lambda f: (f / "unet" / WEIGHTS).unlink(), "FileError", f"has no {WEIGHTS}"),
    "no part": (lambda f: shutil.rmtree(f / "vae"), "CheckpointError", "has no vae"),
    "no tokenizer": (lambda f: shutil.rmtree(f / "tokenizer"), "CheckpointError", "has no tokenizer"),
    "shards outside": (
        lambda f: sharded(f, "../../part.safetensors"),
        "CheckpointError",
        "points out of its folder",
    ),
    "shards at the root": (
        lambda f: sharded(f, "/etc/passwd"),
        "CheckpointError",
        "points out of its folder",
    ),
    "weights linked": (
        lambda f: linked(f / "unet" / WEIGHTS, f.parent / f"{f.name}.outside"),
        "CheckpointError",
        "leaves its folder",
    ),
    "configuration linked": (
        lambda f: linked(f / "unet" / "config.json", f.parent / f"{f.name}.json"),
        "CheckpointError",
        "leaves its folder",
    ),
    "folder linked": (
        lambda f: linked(f / "unet", f.parent / f"{f.name}.unet"),
        "CheckpointError",
        "leaves its folder",
    ),
    "tokenizer linked": (
        lambda f: linked(f / "tokenizer" / "tokenizer.json", f.parent / f"{f.name}.tokenizer"),
        "CheckpointError",
        "leaves its folder",
    ),
    "code in a part": (
        lambda f: changed(f / "unet" / "config.json", auto_map={"AutoModel": "evil.Model"}),
        "CheckpointError",
        "names code to run (auto_map)",
    ),
    "code for a part": (
        lambda f: changed(f / "model_index.json", unet=["evil", "Model"]),
        "CheckpointError",
        "names code to run for its unet",
    ),
    "code for the pipeline": (
        lambda f: changed(f / "model_index.json", _class_name=["evil.py", "Pipeline"]),
        "CheckpointError",
        "names code to run",
    ),
    "a billion layers": (
        lambda f: changed(f / "text_encoder" / "config.json", num_hidden_layers=10**9),
        "CheckpointError",
        "num_hidden_layers of its text_encoder is 1000000000, but there are",
    ),
    "another architecture": (
        other,
        "PresetError",
        "is of no family that Pictura has",
    ),
}

FILES: dict[str, tuple[bytes, str, str]] = {
    "model.ckpt": (b"PK\x03\x04 as torch.save writes it", "CheckpointError", "is a pickle"),
    "model.bin": (pickle.dumps({"w": 1.0}), "CheckpointError", "is a pickle"),
    "old.pt": (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "CheckpointError", "is a pickle"),
    "weights.gguf": (b"GGUF\x03\x00\x00\x00" + b"\0" * 64, "CheckpointError", "is a GGUF file"),
    "model.weights.h5": (b"\x89HDF\r\n\x1a\n" + b"\0" * 64, "CheckpointError", "is an HDF5 file"),
    "picture.safetensors": (b"\x89PNG\r\n\x1a\n" + b"\0" * 64, "CheckpointError", "too few for its header"),
    "nothing.safetensors": (raw({}), "PresetError", "its tensors are called nothing"),
    "lora.safetensors": (
        save({"lora_unet_x.lora_down.weight": torch.zeros(2)}),
        "PresetError",
        "looks like a LoRA",
    ),
    "t5.safetensors": (
        save({"encoder.block.0.layer.0.SelfAttention.q.weight": torch.zeros(2)}),
        "PresetError",
        "looks like a T5 text encoder alone",
    ),
    "pixart.safetensors": (save({"t_block.1.weight": torch.zeros(2)}), "PresetError", "looks like PixArt"),
    "marker.safetensors": (
        save({"double_blocks.0.img_attn.qkv.weight": torch.zeros(2)}),
        "CheckpointError",
        "lacks 'img_in.weight' of a transformer",
    ),
    "shapes.safetensors": (
        save(
            {
                "input_blocks.0.0.weight": torch.zeros(2),
                "middle_block.1.transformer_blocks.0.x": torch.zeros(1),
            }
        ),
        "CheckpointError",
        "shapes of its unet do not fit",
    ),
    "numbers.safetensors": (
        save(
            {
                "input_blocks.0.0.weight": torch.zeros(2),
                "input_blocks.999999999.0.weight": torch.zeros(2),
                "input_blocks.9e9.0.weight": torch.zeros(2),
                "input_blocks..0.weight": torch.zeros(2),
            }
        ),
        "CheckpointError",
        "shapes of its unet do not fit",
    ),
}


def test_hostile_folders(written: Written, tmp_path: Path) -> None:
    places = []
    for at, (harm, _, _) in enumerate(FOLDERS.values()):
        folder = Path(shutil.copytree(written("sd1"), tmp_path / str(at)))
        harm(folder)
        places.append(folder)
    answers = judged("find", [written("sd1"), *places])
    assert answers[0]["kind"] == "nothing"  # the sound one
    cases = zip(FOLDERS.items(), answers[1:], strict=True)
    assert not [line for (name, (_, kind, said)), answer in cases for line in wrong(name, answer, kind, said)]


def test_hostile_files(tmp_path: Path) -> None:
    for name, (content, _, _) in FILES.items():
        (tmp_path / name).write_bytes(content)
    answers = judged("find", [tmp_path / name for name in FILES])
    cases = zip(FILES.items(), answers, strict=True)
    assert not [line for (name, (_, kind, said)), answer in cases for line in wrong(name, answer, kind, said)]


def test_weights_of_another_shape_are_refused_before_memory_is_taken(
    written: Written, tmp_path: Path
) -> None:
    harms: dict[str, Callable[[Path], object]] = {
        "width": lambda f: changed(f / "unet" / "config.json", block_out_channels=[2**20] * 3),
        "words": lambda f: changed(f / "text_encoder" / "config.json", vocab_size=2**40),
        "name": renamed,
    }
    places = []
    for name, harm in harms.items():
        places.append(Path(shutil.copytree(written("sd1"), tmp_path / name)))
        harm(places[-1])
    cases = zip(harms, judged("load", [written("sd1"), *places])[1:], strict=True)
    assert not [line for name, answer in cases for line in wrong(name, answer, "CheckpointError", "tensor '")]


def test_a_mapping_of_another_family_says_what_it_looks_like(written: Written, tmp_path: Path) -> None:
    single = convert(written("sdxl"), tmp_path / "xl", "single-file")
    with pytest.raises(pictura.PresetError, match="is of family 'stable_diffusion', not 'flux'"):
        pictura.TextToImage.of("flux").from_preset(single)
    with pytest.raises(
        pictura.PresetError, match="is of family 'stable_diffusion_3', not 'stable_diffusion'"
    ):
        pictura.TextToImage.of("stable_diffusion").from_preset(written("sd3"))


def wrong(name: str, answer: dict[str, Any], kind: str, said: str) -> list[str]:
    """What is not as it should be, empty when all is well."""
    sound = answer["kind"] == kind and said in answer["said"] and "\n" not in answer["said"]
    quick = answer["seconds"] < SECONDS and answer["memory"] < MEMORY
    return [] if sound and quick else [f"{name}: {answer}"]
