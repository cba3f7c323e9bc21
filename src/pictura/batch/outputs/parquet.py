"""parquet: files with an Image column (https://parquet.apache.org/docs/file-format/)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from pictura.batch import columns
from pictura.batch.outputs import Output, Stored
from pictura.batch.plan import Plan


def shard(plan: Plan, number: int) -> str:
    return f"data-{number:05d}-of-{plan.shards:05d}.parquet"


def write(file: BinaryIO, rows: Iterable[Stored], plan: Plan) -> None:
    from pyarrow import parquet

    with parquet.ParquetWriter(file, columns.schema(plan)) as writer:
        for batch in columns.record_batches(rows, plan):
            writer.write_batch(batch)


def read(path: Path) -> Iterator[tuple[str, bytes]]:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(columns.GROUP, columns=["image"]):
            for row in batch.column("image").to_pylist():
                yield row["path"], row["bytes"]


OUTPUT = Output(
    help="Parquet files with an Image column", files="data-*.parquet", shard=shard, write=write, read=read
)
