"""datasets: Arrow files as `datasets.save_to_disk` writes them, for `datasets.load_from_disk`."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pictura.batch import columns
from pictura.batch.ledger import Ledger
from pictura.batch.outputs import Output, Stored
from pictura.batch.plan import Plan
from pictura.batch.store import Store


def shard(plan: Plan, number: int) -> str:
    return f"data-{number:05d}-of-{plan.shards:05d}.arrow"


def write(file: BinaryIO, rows: Iterable[Stored], plan: Plan) -> None:
    import pyarrow as pa

    with pa.ipc.new_stream(file, columns.schema(plan)) as writer:
        for batch in columns.record_batches(rows, plan):
            writer.write_batch(batch)


def read(path: Path) -> Iterator[tuple[str, bytes]]:
    import pyarrow as pa

    with pa.memory_map(str(path)) as file, pa.ipc.open_stream(file) as batches:
        for batch in batches:
            for row in batch.column("image").to_pylist():
                yield row["path"], row["bytes"]


def finish(store: Store, ledger: Ledger, plan: Plan) -> None:
    files = [{"filename": shard(plan, number)} for number in range(plan.shards)]
    told = f"{plan.to_json()}{ledger.count('kept')}"
    state: dict[str, object] = {
        "_data_files": files,
        "_fingerprint": hashlib.sha256(told.encode()).hexdigest()[:16],
        "_format_columns": None,
        "_format_kwargs": {},
        "_format_type": None,
        "_output_all_columns": False,
        "_split": None,
    }
    info = {"citation": "", "description": "", "homepage": "", "license": ""}
    store.put(store.out / "state.json", json.dumps(state, indent=2).encode())
    features = {**info, "features": columns.features(plan)}
    store.put(store.out / "dataset_info.json", json.dumps(features, indent=2).encode())


OUTPUT = Output(
    help="a folder for datasets.load_from_disk",
    files="data-*.arrow",
    shard=shard,
    write=write,
    read=read,
    finish=finish,
)
