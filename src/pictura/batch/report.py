"""What a run leaves beside the pictures: failures.jsonl, dropped.jsonl and a data card."""

from __future__ import annotations

import json

from pictura.batch import outputs
from pictura.batch.ledger import DROPPED, FAILED, Ledger
from pictura.batch.plan import Plan
from pictura.batch.rows import Source
from pictura.batch.store import Store

__all__ = ["DROPS", "FAILURES", "write"]

FAILURES, DROPS = "failures.jsonl", "dropped.jsonl"


def write(store: Store, ledger: Ledger, plan: Plan, source: Source) -> None:
    """Write the lists that are not empty, and the card."""
    _list(store, ledger, plan, FAILURES, FAILED)
    _list(store, ledger, plan, DROPS, DROPPED)
    store.put(store.out / "README.md", card(plan, source, ledger).encode())


def _list(store: Store, ledger: Ledger, plan: Plan, name: str, state: int) -> None:
    path = store.out / name
    if not ledger.count({FAILED: "failed", DROPPED: "dropped"}[state]):
        path.unlink(missing_ok=True)
        return
    with store.writing(path) as file:
        for entry in ledger.entries(0, states=(state,)):
            row, repetition = divmod(entry.index, plan.num_images)
            line = {"row": row, "repetition": repetition, **(entry.facts or {}), "reason": entry.reason}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")


def card(plan: Plan, source: Source, ledger: Ledger) -> str:
    """README.md of the data set; its header tells `datasets.load_dataset` where the data is."""
    made = ledger.count("kept")
    digest = f", weights `{plan.model_digest[:12]}`" if plan.model_digest else ""
    seed = "" if plan.seed is None else f", seed {plan.seed}"
    images = "one picture" if plan.num_images == 1 else f"{plan.num_images} pictures"
    more = {
        "parameters": plan.parameters or None,
        "best of": plan.best_of if plan.best_of > 1 else None,
        "scorers": ", ".join(plan.scorers) or None,
        "filters": ", ".join(plan.filters) or None,
        "lowest score": plan.min_score,
        "duplicates dropped": plan.dedup,
        "dropped": ledger.count("dropped") or None,
        "failed": ledger.count("failed") or None,
    }
    told = "".join(f"- {name}: {value}\n" for name, value in more.items() if value is not None)
    return f"""---
configs:
- config_name: default
  data_files:
  - split: train
    path: "{outputs.load(plan.format).files}"
---
# {made} generated pictures

Made by Pictura {plan.version} with the model `{plan.model}`{digest} from {plan.rows} prompts, {images}
for each{seed}. Every picture has its own parameters, which make it again.

- prompts: {source.name}, SHA-256 `{plan.source[:12]}`
{told}"""
