"""What people write first: FastAPI around a pipeline of diffusers, one picture after the other.

python benchmarks/_diffusers_server.py FOLDER PORT
"""

from __future__ import annotations

import io
import sys
import threading
from typing import Any

import torch
import uvicorn
from diffusers import StableDiffusionPipeline
from fastapi import FastAPI
from fastapi.responses import Response


def main(folder: str, port: int) -> None:
    pipeline = StableDiffusionPipeline.from_pretrained(folder, safety_checker=None)
    pipeline.set_progress_bar_config(disable=True)
    lock = threading.Lock()  # a pipeline keeps what it is doing in itself
    app = FastAPI()

    @app.get("/readyz")
    def ready() -> dict[str, str]:
        return {"status": "ready"}

    @app.post("/generate")
    def generate(body: dict[str, Any]) -> Response:
        with lock:
            image = pipeline(
                body["prompt"],
                num_inference_steps=body["num_steps"],
                guidance_scale=body["guidance_scale"],
                generator=torch.Generator().manual_seed(body["seed"]),
            ).images[0]
        file = io.BytesIO()
        image.save(file, "PNG")
        return Response(file.getvalue(), media_type="image/png")

    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
