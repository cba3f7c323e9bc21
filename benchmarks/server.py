"""`pictura serve` with 1 to 64 callers, beside FastAPI around a diffusers pipeline; latencies; search.

Both servers have the same small Stable Diffusion with random weights and get the same requests: seeds, steps
and guidance differ. Pictura's answers are on the disk and in its history before they are sent; the other
server keeps nothing. Pictura is also asked for pictures of its built-in model. Servers run one at a time.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
from _common import ROOT, arguments, machine, spread, write
from PIL import Image

SERVE = "import sys; from pictura.cli import main; sys.exit(main())"
PROMPTS = ("a cat", "two dogs on a tree", "a red sky", "a rocket above a pizza")
Make = Callable[[httpx2.AsyncClient, str, dict[str, Any]], Awaitable[bytes]]


def tiny(folder: Path, quick: bool) -> None:
    """A Stable Diffusion of some million parameters, as a diffusers folder."""
    import torch
    from diffusers import AutoencoderKL, EulerDiscreteScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    torch.manual_seed(0)
    letters = [chr(code) for code in range(97, 123)]
    pieces = ["!", *letters, *(f"{letter}</w>" for letter in letters), "<|startoftext|>", "<|endoftext|>"]
    files = folder / "words"
    files.mkdir(parents=True)
    (files / "vocab.json").write_text(json.dumps({piece: at for at, piece in enumerate(pieces)}))
    (files / "merges.txt").write_text("#version: 0.2\n")
    tokenizer = CLIPTokenizer.from_pretrained(files, pad_token="<|endoftext|>", model_max_length=77)
    text = CLIPTextConfig(
        vocab_size=len(pieces), hidden_size=64, intermediate_size=128, num_hidden_layers=2,
        num_attention_heads=4, bos_token_id=len(pieces) - 2, eos_token_id=len(pieces) - 1,
    )  # fmt: skip
    width = 32 if quick else 96
    unet = UNet2DConditionModel(
        sample_size=16, block_out_channels=(width, 2 * width), layers_per_block=1, cross_attention_dim=64,
        attention_head_dim=8, norm_num_groups=8,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(16, 32), layers_per_block=1, latent_channels=4, norm_num_groups=8,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    )  # fmt: skip
    scheduler = EulerDiscreteScheduler(
        beta_schedule="scaled_linear", beta_start=0.00085, beta_end=0.012, steps_offset=1
    )
    StableDiffusionPipeline(
        vae=vae, text_encoder=CLIPTextModel(text), tokenizer=tokenizer, unet=unet, scheduler=scheduler,
        safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    ).save_pretrained(folder / "tiny")  # fmt: skip


@contextmanager
def serving(command: list[str], port: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A server in a process of its own, ready to answer."""
    url, quiet = f"http://127.0.0.1:{port}", subprocess.DEVNULL
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src"), "HF_HUB_OFFLINE": "1"}
    process = subprocess.Popen([sys.executable, *command], env=environment, stdout=quiet, stderr=quiet)
    try:
        for _ in range(1200):
            try:
                if httpx2.get(f"{url}/readyz").status_code == 200:
                    break
            except httpx2.HTTPError:
                if process.poll() is not None:
                    raise SystemExit("a server did not start") from None
            time.sleep(0.1)
        yield url, process
    finally:
        process.terminate()
        process.wait()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


async def ours(client: httpx2.AsyncClient, url: str, request: dict[str, Any]) -> bytes:
    """One picture by the interface that knows jobs: submit, hear that it is there, fetch it."""
    job = (await client.post(f"{url}/api/jobs", json={"requests": [request]})).json()
    async with client.stream("GET", f"{url}/api/jobs/{job['id']}/events") as events:
        async for line in events.aiter_lines():
            if line.startswith("data: ") and '"url"' in line:
                where = json.loads(line[6:])["url"]
                return (await client.get(url + where)).content
    raise SystemExit("a job ended without its picture")


async def openai(client: httpx2.AsyncClient, url: str, request: dict[str, Any]) -> bytes:
    """One picture by the form of OpenAI: one call that answers with it."""
    import base64

    answer = await client.post(f"{url}/v1/images/generations", json=request)
    return base64.b64decode(answer.json()["data"][0]["b64_json"])


async def theirs(client: httpx2.AsyncClient, url: str, request: dict[str, Any]) -> bytes:
    return (await client.post(f"{url}/generate", json=request)).content


def requests(count: int, first: int, model: str | None) -> list[dict[str, Any]]:
    """Mixed: steps 6 to 13, guidance 1 to 4."""
    named = {} if model is None else {"model": model}
    return [
        {
            "prompt": PROMPTS[i % len(PROMPTS)],
            "seed": first + i,
            "num_steps": 6 + i % 8,
            "guidance_scale": (1.0, 2.0, 3.0, 4.0)[i // 2 % 4],
            **named,
        }
        for i in range(count)
    ]


async def loaded(make: Make, url: str, wanted: list[dict[str, Any]], at_once: int) -> dict[str, Any]:
    """Pictures a second with so many callers, and how long each waited."""
    left, waits, made = iter(wanted), list[float](), list[bytes]()
    limits = httpx2.Limits(max_connections=2 * at_once + 8, max_keepalive_connections=2 * at_once + 8)
    async with httpx2.AsyncClient(timeout=600, limits=limits) as client:

        async def caller() -> None:
            for request in left:
                started = time.perf_counter()
                made.append(await make(client, url, request))
                waits.append(time.perf_counter() - started)

        started = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(at_once)))
        took = time.perf_counter() - started
    waits.sort()
    return {
        "pictures_per_second": round(len(made) / took, 3),
        "p50": round(waits[len(waits) // 2], 4),
        "p99": round(waits[min(len(waits) - 1, int(len(waits) * 0.99))], 4),
    }


async def previews(url: str, runs: int) -> dict[str, float]:
    """Seconds from the POST of a long picture to its first preview."""
    found = []
    async with httpx2.AsyncClient(timeout=60) as client:
        for run in range(runs):
            request = {"prompt": "a cat", "seed": run, "num_steps": 30, "model": "scenes"}
            started = time.perf_counter()
            job = (await client.post(f"{url}/api/jobs", json={"requests": [request]})).json()
            async with client.stream("GET", f"{url}/api/jobs/{job['id']}/events") as events:
                async for line in events.aiter_lines():
                    if line == "event: preview":
                        found.append(time.perf_counter() - started)
                        break
            await client.delete(f"{url}/api/jobs/{job['id']}")
    return spread(found)


async def overhead(url: str, runs: int) -> dict[str, Any]:
    """Seconds that a picture of one step takes over HTTP, and made by the same model in this process."""
    from pictura import TextToImage

    model = TextToImage.from_preset("scenes", history=False)
    here, there = [], []
    async with httpx2.AsyncClient(timeout=60) as client:
        for run in range(runs + 2):
            request = {"prompt": "a cat", "seed": run, "num_steps": 1}
            started = time.perf_counter()
            content = await openai(client, url, {**request, "model": "scenes"})
            middle = time.perf_counter()
            picture = model.generate("a cat", seed=run, num_steps=1)
            picture.to_bytes(".png")
            ended = time.perf_counter()
            if not np.array_equal(np.asarray(Image.open(io.BytesIO(content))), np.asarray(picture)):
                raise SystemExit("the server's picture is another than the one made here")
            if run >= 2:
                there.append(middle - started)
                here.append(ended - middle)
    return {"http": spread(there), "here": spread(here)}


def million(folder: Path, rows: int) -> None:
    """A history of so many pictures that share one file."""
    from pictura import Picture, Request
    from pictura.history import History
    from pictura.history.database import begin
    from pictura.history.tables import pictures

    words = [f"word{i}" for i in range(5000)]
    rng = np.random.default_rng(0)
    with History(None, folder) as history:
        image = Image.new("RGB", (64, 64))
        request = Request(prompt="a", seed=1, model="scenes", num_steps=12, sampler="euler")
        entry = history.add(Picture(image=image, request=request, model_digest="0" * 64))
        common = {
            "made_at": entry.made_at, "sha256": entry.sha256, "suffix": ".png", "width": 64, "height": 64,
            "model": "scenes", "model_digest": "0" * 64, "request": request.to_json(), "details": "{}",
            "num_steps": 12, "sampler": "euler", "guidance_scale": 1.0,
        }  # fmt: skip
        for begun in range(0, rows, 20_000):
            picks = (5000 * rng.random((20_000, 6)) ** 3).astype(int)
            block = [
                {
                    **common,
                    "id": f"{begun + i:032x}",
                    "seed": begun + i,
                    "prompt": " ".join(words[word] for word in picks[i]),
                    "stars": (begun + i) % 6 or None,
                }
                for i in range(min(20_000, rows - begun))
            ]
            with begin(history.engine) as connection:
                connection.execute(pictures.insert(), block)


def searches(url: str, runs: int, rows: int) -> dict[str, Any]:
    """Milliseconds of GET /api/images, the whole answer of 50 pictures."""
    asked = {
        "newest": {},
        "a frequent word": {"query": "word0"},
        "a rare word": {"query": "word4999"},
        "two words": {"query": "word1 word20"},
        "5 stars": {"min_stars": 5},
        "a word and 5 stars": {"query": "word3", "min_stars": 5},
        "a seed": {"seed": rows // 2},
    }
    found: dict[str, list[float]] = {name: [] for name in asked}
    with httpx2.Client(timeout=60) as client:
        for run in range(runs + 1):
            for name, query in asked.items():
                started = time.perf_counter()
                answer = client.get(f"{url}/api/images", params=query)
                took = 1000 * (time.perf_counter() - started)
                if answer.status_code != 200 or not answer.json()["items"]:
                    raise SystemExit(f"the search for {name} found nothing: {answer.text[:300]}")
                if run:
                    found[name].append(took)
    return {name: spread(values, 2) for name, values in found.items()}


def main() -> None:
    options, before = arguments(__doc__ or ""), machine()
    callers = (1, 4) if options.quick else (1, 4, 16, 64)
    turns, rows = (1, 2000) if options.quick else (2, 1_000_000)
    results: dict[str, Any] = {"callers": list(callers), "rows": rows}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        tiny(folder, options.quick)
        model = str(folder / "tiny")
        port, other = free_port(), free_port()
        serve = ["-c", SERVE, "serve", "--port", str(port), "--folder", str(folder / "home")]
        serve += ["--model", "scenes", "--model", f"tiny={model}"]
        rates: dict[str, dict[int, list[dict[str, Any]]]] = {}
        pictures: dict[str, bytes] = {}
        with serving(serve, port) as (url, _):
            one = {"prompt": "a cat", "seed": 1, "num_steps": 6, "guidance_scale": 2.0}
            pictures["pictura"] = asyncio.run(once(openai, url, {**one, "model": "tiny"}))
            with serving([str(ROOT / "benchmarks" / "_diffusers_server.py"), model, str(other)], other) as (
                peer,
                _,
            ):
                pictures["diffusers"] = asyncio.run(once(theirs, peer, one))
                ways: dict[str, tuple[Make, str, str | None]] = {
                    "FastAPI and diffusers": (theirs, peer, None),
                    "pictura": (openai, url, "tiny"),
                    "pictura, scenes": (openai, url, "scenes"),
                    "pictura, scenes, with previews": (ours, url, "scenes"),
                }
                for turn in range(turns):
                    for at_once in callers:
                        for name, (make, where, named) in ways.items():
                            count = max(4 if options.quick else 16, 2 * at_once)
                            wanted = requests(count, 1000 * turn, named)
                            got = asyncio.run(loaded(make, where, wanted, at_once))
                            rates.setdefault(name, {}).setdefault(at_once, []).append(got)
                            print(turn, name, at_once, got, flush=True)
            results["first_preview"] = asyncio.run(previews(url, 2 if options.quick else 15))
            results["one_step"] = asyncio.run(overhead(url, 2 if options.quick else 30))
        results["load"] = {
            name: {
                str(at_once): {key: spread([run[key] for run in runs]) for key in runs[0]}
                for at_once, runs in by_callers.items()
            }
            for name, by_callers in rates.items()
        }
        shades = [np.asarray(Image.open(io.BytesIO(p))).astype(int) for p in pictures.values()]
        results["largest_difference"] = int(abs(shades[0] - shades[1]).max())
        million(folder / "many", rows)
        serve[serve.index("--folder") + 1] = str(folder / "many")
        with serving(serve, port) as (url, _):
            results["search_ms"] = searches(url, 2 if options.quick else 15, rows)
    write("server", results, options, before)


async def once(make: Make, url: str, request: dict[str, Any]) -> bytes:
    async with httpx2.AsyncClient(timeout=600) as client:
        return await make(client, url, request)


if __name__ == "__main__":
    main()
