"""datasets: Arrow files as `datasets.save_to_disk` writes them, for `datasets.load_from_disk`."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pictura import arrow
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
    shards = [shard(plan, number) for number in range(plan.shards)]
    told = hashlib.sha256(f"{plan.to_json()}{ledger.count('kept')}".encode()).hexdigest()[:16]
    for name, content in arrow.dataset_files(shards, told, columns.features(plan)):
        store.put(store.out / name, content)


OUTPUT = Output(
    help="a folder for datasets.load_from_disk",
    files="data-*.arrow",
    shard=shard,
    write=write,
    read=read,
    finish=finish,
)
