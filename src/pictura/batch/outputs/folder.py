"""folder: a PNG for each picture and metadata.jsonl beside them, the layout of `datasets`' imagefolder."""

from __future__ import annotations

import json

from pictura.batch.ledger import Ledger
from pictura.batch.outputs import Output
from pictura.batch.plan import Plan
from pictura.batch.store import Store


def finish(store: Store, ledger: Ledger, plan: Plan) -> None:
    with store.writing(store.out / "metadata.jsonl") as file:
        for entry in ledger.entries(0):
            line = {"file_name": plan.file_name(entry.index), **(entry.facts or {})}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


OUTPUT = Output(help="PNG files with metadata.jsonl", files="**", finish=finish)
