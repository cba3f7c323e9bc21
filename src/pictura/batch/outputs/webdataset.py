"""webdataset: tar files in which a picture's .png, .txt and .json follow each other."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from pictura.batch.outputs import Output, Stored
from pictura.batch.plan import Plan


def shard(plan: Plan, number: int) -> str:
    return f"data-{number:06d}.tar"


def write(file: BinaryIO, rows: Iterable[Stored], plan: Plan) -> None:
    with tarfile.open(None, "w", file, format=tarfile.USTAR_FORMAT) as tar:
        for facts, name, data in rows:
            parts = {
                "png": data,
                "txt": str(facts["prompt"]).encode(),
                "json": json.dumps(facts, ensure_ascii=False).encode(),
            }
            for kind, content in parts.items():
                entry = tarfile.TarInfo(f"{Path(name).stem}.{kind}")
                entry.size = len(content)
                tar.addfile(entry, BytesIO(content))


def read(path: Path) -> Iterator[tuple[str, bytes]]:
    with tarfile.open(path) as tar:
        for entry in tar:
            if entry.name.endswith(".png"):
                content = tar.extractfile(entry)
                assert content is not None  # a plain file, as we wrote it
                yield entry.name, content.read()


OUTPUT = Output(help="WebDataset shards", files="data-*.tar", shard=shard, write=write, read=read)
