"""What a load and a streamed evaluation take: fresh processes, a file of some hundred megabytes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pictura.families.flux.model import FluxTransformer
from pictura.formats import networks

CONFIG = {
    "in_channels": 16, "num_layers": 4, "num_single_layers": 12, "attention_head_dim": 64,
    "num_attention_heads": 12, "joint_attention_dim": 64, "pooled_projection_dim": 32,
    "axes_dims_rope": [16, 24, 24],
}  # fmt: skip
CODE = """
import json, sys
from pathlib import Path
import torch
from pictura.families.flux.model import FluxTransformer
from pictura.formats import networks, safetensors
config, folder, streamed = json.loads(sys.argv[1]), Path(sys.argv[2]), sys.argv[3] == "streamed"
class Model:
    def __init__(self):
        self.network = FluxTransformer(config)
    def networks(self):
        return {"n": self.network}
def peak():
    with open("/proc/self/status") as status:
        return next(1024 * int(line.split()[1]) for line in status if line.startswith("VmHWM"))
torch.set_num_threads(1)
torch.set_grad_enabled(False)
before = peak()
entries = safetensors.weights(folder)
network = networks.build(Model, entries, dtype=torch.bfloat16, streamed=streamed).network
if streamed:
    x, context, pooled = (torch.zeros(s, dtype=torch.bfloat16) for s in ((1, 4, 8, 8), (1, 8, 64), (1, 32)))
    assert network(x, torch.tensor([0.5]), context, pooled).shape == x.shape
print(peak() - before)
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Zeros with the layout of a FLUX in bfloat16; a sparse file, which takes no room on disk."""
    with torch.device("meta"):
        tensors = networks.tensors({"n": FluxTransformer(CONFIG)})
    header, end = {}, 0
    for name, tensor in tensors.items():
        places = [end, end := end + 2 * tensor.numel()]
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": places}
    text = json.dumps(header).encode()
    path = tmp_path_factory.mktemp("large") / "model.safetensors"
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + end)
    return path


def taken(file: Path, way: str) -> float:
    """Memory of a fresh process beyond its imports, as a share of the file."""
    environment = {**os.environ, "PYTHONPATH": str(Path(networks.__file__).parents[2])}
    command = [sys.executable, "-c", CODE, json.dumps(CONFIG), str(file.parent), way]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return int(done.stdout) / file.stat().st_size


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
def test_a_load_takes_the_file_and_hardly_more(file: Path) -> None:
    assert file.stat().st_size > 300e6
    assert 0.7 < taken(file, "loaded") <= 1.1


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory otherwise")
def test_streaming_takes_two_blocks(file: Path) -> None:
    """The largest block is an eighth of this file."""
    assert taken(file, "streamed") < 0.4
